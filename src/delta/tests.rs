//! Against rdiff, which is librsync's own program, and against enemies.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn signature_of(content: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    signature(&mut &*content, &mut output).unwrap();
    output
}

fn delta_of(new: &[u8], signature: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let mut output = Vec::new();
    delta(&mut &*new, signature, &mut output, Bounds::default()).map(|()| output)
}

fn file_with(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn patched(basis: &[u8], delta: &[u8], limit: u64) -> Result<Vec<u8>, DeltaError> {
    let mut output = Vec::new();
    let written = patch(file_with(basis), &mut &*delta, &mut output, limit)?;
    assert_eq!(written, output.len() as u64);
    Ok(output)
}

/// Bytes without a pattern, the same in every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Runs rdiff in `directory`; it has to be installed (Debian: package `rdiff`).
fn rdiff(directory: &Path, arguments: &[&str]) {
    let status = Command::new("rdiff").args(arguments).current_dir(directory).status();
    assert!(status.expect("these tests need the program rdiff").success(), "rdiff {arguments:?}");
}

#[test]
fn signature_and_delta_are_rdiffs_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let basis = noise(300_000, 1);
    let mut changed = basis.clone();
    changed.splice(100_000..100_010, *b"another text");
    changed.extend_from_slice(b"and more");
    let repeated = [&basis[..4096], &basis[..4096], &noise(70_000, 2), &basis[..2048]].concat();
    let zeroes = vec![0; 100_000];
    for (old, new) in [
        (&basis[..], &changed[..]),
        (&basis, &repeated),
        (&basis, &basis),
        (&basis, &[]),
        (&zeroes, &zeroes),
        (b"short", b"short, but longer"),
        (&changed, &noise(90_000, 3)),
    ] {
        fs::write(path("old"), old).unwrap();
        fs::write(path("new"), new).unwrap();
        rdiff(
            directory.path(),
            &["-f", "-R", "rollsum", "-H", "md4", "-b", "2048", "-S", "16", "signature", "old", "sig"],
        );
        rdiff(directory.path(), &["-f", "delta", "sig", "new", "delta"]);
        let signature = signature_of(old);
        assert!(signature == fs::read(path("sig")).unwrap());
        let delta = delta_of(new, &signature).unwrap();
        assert!(delta == fs::read(path("delta")).unwrap(), "{} to {} bytes", old.len(), new.len());
        assert!(patched(old, &delta, new.len() as u64).unwrap() == new);
    }
}

#[test]
fn an_empty_file_has_a_bare_header() {
    assert_eq!(signature_of(b""), [0x72, 0x73, 1, 0x36, 0, 0, 8, 0, 0, 0, 0, 16]);
    check_signature_header(&MISSING_BASIS).unwrap();
}

#[test]
fn without_a_basis_the_delta_is_literal_and_rdiff_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("basis"), "").unwrap();
    for length in [0, 1, 64, 65, 255, 256, 32_767, 32_768, 32_769, 100_000] {
        let content = noise(length, 5);
        for signature in [&MISSING_BASIS[..], &signature_of(b"")] {
            let delta = delta_of(&content, signature).unwrap();
            assert!(delta.len() <= length + 4 + 1 + 3 * (length / LITERAL + 1));
            fs::write(directory.path().join("delta"), &delta).unwrap();
            rdiff(directory.path(), &["-f", "patch", "basis", "delta", "new"]);
            assert!(fs::read(directory.path().join("new")).unwrap() == content, "{length}");
            assert!(patched(b"", &delta, length as u64).unwrap() == content, "{length}");
        }
    }
}

#[test]
fn broken_signatures_are_refused_before_anything_is_written() {
    let header = |magic: u32, block_length: u32, strong_length: u32| {
        [magic, block_length, strong_length].map(u32::to_be_bytes).concat()
    };
    let good = header(0x7273_0136, 2048, 16);
    check_signature_header(&good).unwrap();
    for bad in [
        header(0x7273_0137, 2048, 16),
        header(0x7273_0146, 2048, 16),
        header(0x7273_0136, 0, 16),
        header(0x7273_0136, (1 << 14) + 1, 16),
        header(0x7273_0136, u32::MAX, 16),
        header(0x7273_0136, 2048, 0),
        header(0x7273_0136, 2048, 17),
        good[..11].to_vec(),
        Vec::new(),
        [&good[..], &[0; 19]].concat(),
    ] {
        let mut output = Vec::new();
        let result = delta(&mut &b"content"[..], &bad, &mut output, Bounds::default());
        assert!(matches!(result, Err(DeltaError::BadSignature(_))), "{bad:?}");
        assert!(output.is_empty());
    }
}

#[test]
fn signatures_made_to_keep_us_busy_get_the_whole_file() {
    let new = vec![0; 200_000];
    // All weak sums equal, all strong sums different: building librsync's table alone would take minutes.
    let mut signature = signature_of(b"");
    for block in 0..500_000u32 {
        signature.extend_from_slice(&[0; 4]);
        signature.extend_from_slice(&noise(16, block.into()));
    }
    let delta = delta_of(&new, &signature).unwrap();
    assert!(delta.len() > new.len(), "only literal commands");
    assert!(patched(b"", &delta, 200_000).unwrap() == new);

    let many = signature_of(&noise(10 * 2048, 1));
    let mut output = Vec::new();
    super::delta(&mut &noise(10 * 2048, 1)[..], &many, &mut output, Bounds { blocks: 9 }).unwrap();
    assert!(output.len() > 10 * 2048);
}

#[test]
fn a_delta_may_make_as_much_as_allowed_and_no_more() {
    // Copies the whole basis again and again: 48 KiB that would become a gigabyte.
    let basis = noise(65_535, 9);
    let mut bomb = DELTA_MAGIC.to_vec();
    for _ in 0..16_384 {
        bomb.extend_from_slice(&[0x46, 0, 0xff, 0xff]);
    }
    bomb.push(0);
    let mut output = Vec::new();
    let result = patch(file_with(&basis), &mut &bomb[..], &mut output, 1_000_000);
    assert!(matches!(result, Err(DeltaError::TooLong { limit: 1_000_000 })));
    assert!(output.len() <= 1_000_000);

    let delta = delta_of(b"exactly this", &MISSING_BASIS).unwrap();
    assert_eq!(patched(b"", &delta, 12).unwrap(), b"exactly this");
    assert!(matches!(patched(b"", &delta, 11), Err(DeltaError::TooLong { limit: 11 })));
}

#[test]
fn copies_stay_within_the_basis() {
    for copy in [&[0x45, 0, 7][..], &[0x45, 6, 1], &[0x54, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1], &[0x45, 0, 0]] {
        let delta = [&DELTA_MAGIC[..], copy, &[0]].concat();
        assert!(matches!(patched(b"potato", &delta, 100), Err(DeltaError::BadDelta(_))), "{copy:?}");
    }
    let delta = [&DELTA_MAGIC[..], &[0x45, 0, 6, 0]].concat();
    assert_eq!(patched(b"potato", &delta, 100).unwrap(), b"potato");
}

/// Gives some bytes, then fails.
struct Broken<'b>(&'b [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::Error::other("the disk is broken")) } else { self.0.read(buffer) }
    }
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_here_are_told_from_failures_of_the_peer() {
    let told = |result: Result<(), DeltaError>, expected: &str| match result {
        Err(DeltaError::Io { operation, source }) => {
            assert_eq!(operation, expected);
            assert!(source.to_string().contains("broken") || source.kind() == io::ErrorKind::StorageFull);
        }
        other => panic!("{expected}: {other:?}"),
    };
    let content = noise(5000, 1);
    let sums = signature_of(&content);
    let good = delta_of(&content, &sums).unwrap();
    let bounds = Bounds::default();
    let sink = &mut io::sink();
    told(signature(&mut Broken(&content), sink), "read the file for its signature");
    told(signature(&mut &content[..], &mut Full), "write the signature");
    told(delta(&mut Broken(&content), &sums, sink, bounds), READ_NEW);
    told(delta(&mut Broken(&content), &MISSING_BASIS, sink, bounds), READ_NEW);
    told(delta(&mut &content[..], &sums, &mut Full, bounds), WRITE_DELTA);
    told(patch(file_with(&content), &mut Broken(&good[..5]), sink, 9000).map(drop), "receive the delta");
    told(patch(file_with(&content), &mut &good[..], &mut Full, 9000).map(drop), "write the patched file");
    let directory = File::open("/").unwrap();
    let result = patch(directory, &mut &good[..], sink, 9000);
    assert!(matches!(result, Err(DeltaError::Io { operation: READ_BASIS, .. })), "{result:?}");
    let result = patch(file_with(&content), &mut &good[..good.len() - 1], sink, 9000);
    assert!(matches!(result, Err(DeltaError::BadDelta(_))), "{result:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_changed_arrives(
        old in prop::collection::vec(any::<u8>(), 0..10_000),
        cut in any::<prop::sample::Index>(),
        inserted in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let cut = cut.index(old.len() + 1);
        let new = [&old[cut..], &inserted, &old[..cut]].concat();
        let delta = delta_of(&new, &signature_of(&old)).unwrap();
        prop_assert!(patched(&old, &delta, new.len() as u64).unwrap() == new);
    }

    #[test]
    fn any_sums_give_a_good_delta_or_an_error(
        block_length in 1u32..3000,
        strong_length in 1u32..=16,
        sums in prop::collection::vec(any::<u8>(), 0..400),
        new in prop::collection::vec(0u8..3, 0..5000),
    ) {
        let header = [0x7273_0136, block_length, strong_length].map(u32::to_be_bytes).concat();
        // Strong sums of one byte may match by chance: then the delta is good for another basis.
        if let Ok(delta) = delta_of(&new, &[&header[..], &sums].concat()) {
            prop_assert!(delta.starts_with(&DELTA_MAGIC) && delta.ends_with(&[0]));
        }
        let _ = delta_of(&new, &sums);
    }

    #[test]
    fn any_delta_stays_below_the_limit(
        commands in prop::collection::vec(prop_oneof![0u8..=0x56, any::<u8>()], 0..300),
        limit in 0u64..5000,
    ) {
        let delta = [&DELTA_MAGIC[..], &commands].concat();
        let mut output = Vec::new();
        let result = patch(file_with(b"a basis of a few bytes"), &mut &delta[..], &mut output, limit);
        prop_assert!(output.len() as u64 <= limit);
        let told_apart = matches!(result, Ok(_) | Err(DeltaError::BadDelta(_) | DeltaError::TooLong { .. }));
        prop_assert!(told_apart, "{:?}", result);
        let _ = patch(file_with(b""), &mut &commands[..], &mut io::sink(), limit);
    }
}
