//! Bytes from a socket: hellos as the daemon reads them, answers as the hook does.
//!
//! No bytes may make a reader panic or read past the frame. What is accepted must survive the wire: encoded and read
//! again it is the same, and no longer than it came.
#![no_main]

use headgate_abi::limits::FRAME_BYTES_MAX;
use headgate_abi::wire::{Answer, Frame, Hello};
use libfuzzer_sys::fuzz_target;

fn whole(bytes: &[u8]) -> Frame<'_> {
    let (frame, length) = Frame::parse(bytes).expect("our own frame").expect("all of it");
    assert_eq!(length, bytes.len());
    frame
}

fuzz_target!(|data: &[u8]| {
    let Ok(Some((frame, length))) = Frame::parse(data) else { return };
    assert!(length <= data.len() && length <= FRAME_BYTES_MAX);
    if let Ok(hello) = Hello::decode(frame) {
        let again = hello.encode();
        assert!(again.len() <= length);
        assert_eq!(Hello::decode(whole(&again)).expect("our own hello"), hello);
    }
    match Answer::decode(frame) {
        Ok(answer) => assert_eq!(Answer::decode(whole(&answer.encode())).expect("our own answer"), answer),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
