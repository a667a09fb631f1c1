//! Waiting for something to be so, under a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// It did not become so.
#[derive(Debug, thiserror::Error)]
#[error("gave up after {} s waiting for {what}{}", waited.as_secs(), last.as_ref().map_or_else(String::new, |last| format!(": {last}")))]
pub struct Expired {
    what: String,
    waited: Duration,
    last: Option<String>,
}

/// Calls `probe` until it returns a value; what its last error said is in the error.
pub fn until<T, E: std::fmt::Display>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, E>,
) -> Result<T, Expired> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        let last = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        };
        if Instant::now() >= end {
            return Err(Expired { what: what.to_owned(), waited: limit, last });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// As [`until`], for a probe that cannot fail.
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) -> Result<(), Expired> {
    until(what, limit, || Ok::<_, String>(probe().then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_comes_when_it_is_there() {
        let mut count = 0;
        let value = until("three", Duration::from_secs(5), || {
            count += 1;
            Ok::<_, String>((count == 3).then_some(count))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn an_expired_wait_names_the_last_error() {
        let error = until::<(), _>("the moon", Duration::ZERO, || Err("cloudy")).unwrap_err().to_string();
        assert!(error.contains("the moon") && error.contains("cloudy"), "{error}");
    }
}
