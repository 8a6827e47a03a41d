//! Makes Rust of KEDA's contract, without protoc. What it makes is never in the repository.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/externalscaler.proto";
    println!("cargo::rerun-if-changed={proto}");
    let contract = protox::compile([proto], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .client_mod_attribute("externalscaler", "#[cfg(test)]")
        .compile_fds(contract)?;
    Ok(())
}
