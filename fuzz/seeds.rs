//! Writes `corpus/<target>/seed-<n>`: what each fuzz target begins with.

#[path = "bodies/mod.rs"]
mod bodies;

fn main() -> std::io::Result<()> {
    for target in bodies::TARGETS {
        let corpus =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        std::fs::create_dir_all(&corpus)?;
        for (n, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{n}")), seed)?;
        }
    }
    Ok(())
}
