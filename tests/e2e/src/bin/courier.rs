//! A program that sends what it is told: reads one command a line, answers one line.
//!
//! `udp ADDRESS BYTES COUNT` sends datagrams without connecting; `ok SENT` or `err ERRNO` of the first that failed, after how many.
//! `tcp ADDRESS` connects and closes; `ok` or `err ERRNO`. `ioctl REQUEST COUNT` makes ioctls of that number on its standard
//! input, which refuses them all; `ok COUNT`. `echo ADDRESS` answers what comes to it from now on; `ok PORT`. `ping ADDRESS COUNT` has so many
//! messages answered over one connection; `ok COUNT`. It knows nothing of Headgate or CUDA.
#![expect(clippy::print_stdout, reason = "answers are its purpose")]

use std::io::{self, BufRead, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

fn main() {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match obey(&words) {
            Ok(sent) => format!("ok {sent}"),
            Err((error, sent)) => format!("err {} {sent}", error.raw_os_error().unwrap_or(0)),
        };
        println!("{answer}");
        if io::stdout().flush().is_err() {
            return;
        }
    }
}

fn obey(words: &[&str]) -> Result<u64, (io::Error, u64)> {
    let odd = || (io::Error::other("not a command"), 0);
    match words {
        ["udp", address, bytes, count] => {
            let address: SocketAddr = address.parse().map_err(|_| odd())?;
            let (bytes, count) = (bytes.parse().map_err(|_| odd())?, count.parse().map_err(|_| odd())?);
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).map_err(|error| (error, 0))?;
            let message = vec![0u8; bytes];
            for sent in 0..count {
                socket.send_to(&message, address).map_err(|error| (error, sent))?;
            }
            Ok(count)
        }
        ["tcp", address] => {
            let address: SocketAddr = address.parse().map_err(|_| odd())?;
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(|error| (error, 0))?;
            Ok(0)
        }
        ["echo", address] => {
            let listener = TcpListener::bind(address).map_err(|error| (error, 0))?;
            let port = listener.local_addr().map_err(|error| (error, 0))?.port();
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    std::thread::spawn(move || answer_all(stream));
                }
            });
            Ok(u64::from(port))
        }
        ["ping", address, count] => {
            let address: SocketAddr = address.parse().map_err(|_| odd())?;
            let count = count.parse().map_err(|_| odd())?;
            let mut stream = TcpStream::connect(address).map_err(|error| (error, 0))?;
            stream.set_nodelay(true).map_err(|error| (error, 0))?;
            for sent in 0..count {
                let mut byte = [0u8];
                stream.write_all(&byte).map_err(|error| (error, sent))?;
                stream.read_exact(&mut byte).map_err(|error| (error, sent))?;
            }
            Ok(count)
        }
        ["ioctl", request, count] => {
            let request = u64::from_str_radix(request, 16).map_err(|_| odd())?;
            let count = count.parse().map_err(|_| odd())?;
            for _ in 0..count {
                #[expect(unsafe_code, reason = "ioctl(2)")]
                // SAFETY: a pipe takes no such request and looks at no argument.
                let _refused = unsafe { libc::ioctl(0, request, 0) };
            }
            Ok(count)
        }
        _ => Err(odd()),
    }
}

fn answer_all(mut stream: TcpStream) {
    let mut byte = [0u8];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}
