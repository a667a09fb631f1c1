//! The external networker as a process: flags and standard input in, JSON on standard output out.
#![forbid(unsafe_code)]

use std::{
    io::{Write, stderr, stdin, stdout},
    process::ExitCode,
};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    // A parent that has closed its end wants no answer.
    match isthmus_garden::run(&args, &mut stdin().lock()) {
        Ok(answer) => {
            let _ = stdout().lock().write_all(answer.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(stderr().lock(), "{error}");
            ExitCode::FAILURE
        }
    }
}
