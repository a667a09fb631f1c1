//! The asking side: one question, or one long talk.

use super::{DONE, REFUSED, UNREACHABLE, fail, say};
use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Fetches `url` and prints the body.
pub(super) fn get(url: &str, timeout: Duration) -> u8 {
    let Some((address, path)) = parse(url) else {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "want http://ADDRESS:PORT/PATH");
        return fail(url, &error);
    };
    match fetch(address, &path, timeout) {
        Ok((status, body)) => {
            say(body.trim_end());
            if (200..300).contains(&status) { DONE } else { REFUSED }
        }
        Err(error) => fail(&format!("cannot reach {url}"), &error),
    }
}

fn parse(url: &str) -> Option<(SocketAddr, String)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address =
        authority.parse().ok().or_else(|| Some((authority.parse::<Ipv4Addr>().ok()?, 80).into()))?;
    Some((address, format!("/{path}")))
}

fn fetch(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    // In one piece: a server that answers the first of several and leaves would reset the connection.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    Ok((status, body.to_owned()))
}

/// Sends one datagram and waits for its echo.
pub(super) fn udp(address: SocketAddr, timeout: Duration) -> u8 {
    let exchange = || -> io::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.send(b"isthmus")?;
        let mut buffer = [0; 64];
        socket.recv(&mut buffer).map(drop)
    };
    match exchange() {
        Ok(()) => {
            say(&format!("echo from {address}"));
            DONE
        }
        Err(error) => fail(&format!("no echo from {address}"), &error),
    }
}

/// Keeps a connection busy; prints `open`, then the number of each line that came back, then why it ended.
pub(super) fn talk(address: SocketAddr, every: Duration, silence: Duration) -> u8 {
    let connect = || -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&address, silence)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(silence))?;
        Ok(BufReader::new(stream))
    };
    let mut reader = match connect() {
        Ok(reader) => reader,
        Err(error) => return fail(&format!("cannot reach {address}"), &error),
    };
    say("open");
    let mut line = String::new();
    for number in 1_u64.. {
        line.clear();
        let outcome = reader.get_mut().write_all(format!("{number}\n").as_bytes());
        match outcome.and_then(|()| reader.read_line(&mut line)) {
            Ok(0) => say(&format!("closed after {}", number - 1)),
            Ok(_) => {
                say(line.trim_end());
                thread::sleep(every);
                continue;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                say(&format!("silent after {}", number - 1));
            }
            Err(error) => say(&format!("broken after {}: {error}", number - 1)),
        }
        return REFUSED;
    }
    UNREACHABLE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn urls_are_taken_apart() {
        let check = |url: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(address, path)| (address.parse().unwrap(), path.to_owned()));
            assert_eq!(parse(url), expected, "{url}");
        };
        check("http://10.64.0.2:8080/a/b", Some(("10.64.0.2:8080", "/a/b")));
        check("http://10.64.0.2", Some(("10.64.0.2:80", "/")));
        check("https://10.64.0.2/", None);
        check("http://name/", None);
    }

    #[test]
    fn an_answer_is_read_with_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 512];
            let _read = stream.read(&mut buffer).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").unwrap();
        });
        let answer = fetch(address, "/", Duration::from_secs(5)).unwrap();
        server.join().unwrap();
        assert_eq!(answer, (404, "no".to_owned()));
    }

    #[test]
    fn a_talk_ends_when_the_peer_leaves() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || drop(listener.accept().unwrap()));
        let code = talk(address, Duration::from_millis(1), Duration::from_secs(5));
        server.join().unwrap();
        assert_eq!(code, REFUSED);
    }
}
