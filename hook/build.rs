//! Binds the library's references to its own functions at link time. Otherwise a layer loaded before it that exports
//! `dlsym`, too, would be what the library hands out as its own, and would call itself without end.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic-functions");
    println!("cargo::rerun-if-changed=build.rs");
}
