//! The `pgsplit` command.

fn main() -> std::process::ExitCode {
    pgsplit::cli::main()
}
