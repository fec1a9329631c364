//! The packhouse program. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    packhouse::cli::run(std::env::args_os())
}
