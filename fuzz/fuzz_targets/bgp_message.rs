//! A stream of BGP messages, as a session cuts it.
#![no_main]

use isthmus_bgp::{
    Family,
    wire::{EXTENDED_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, Message, UpdateContext, frame},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&flags, mut stream)) = data.split_first() else { return };
    let max = if flags & 1 == 0 { MESSAGE_BYTES_MAX } else { EXTENDED_MESSAGE_BYTES_MAX };
    let context =
        UpdateContext { as4: flags & 2 != 0, families: Family::ALL.into_iter().collect(), ..Default::default() };
    while let Ok(Some(frame)) = frame(stream, max) {
        stream = &stream[frame.len()..];
        match Message::decode(frame, &context) {
            Ok(Message::Notification(notification)) => {
                let bytes = notification.encode();
                let again = isthmus_bgp::wire::frame(&bytes, MESSAGE_BYTES_MAX).expect("ours").expect("whole");
                if notification.data.len() <= MESSAGE_BYTES_MAX - 21 {
                    assert_eq!(Message::decode(again, &context), Ok(Message::Notification(notification.clone())));
                }
                let _ = notification.to_string();
            }
            Ok(Message::RouteRefresh(refresh)) => {
                let bytes = refresh.encode();
                let again = isthmus_bgp::wire::frame(&bytes, MESSAGE_BYTES_MAX).expect("ours").expect("whole");
                assert_eq!(Message::decode(again, &context), Ok(Message::RouteRefresh(refresh)));
            }
            Ok(Message::Open(_) | Message::Update(_) | Message::Keepalive) => {}
            Err(notification) => {
                let _ = notification.encode();
                return;
            }
        }
    }
});
