//! Against librsync, with its own program rdiff, and against enemies.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::commands::MAGIC;
use super::literal::LITERAL;
use super::patch::READ_BASIS;
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
    let written = patch(&file_with(basis), &mut &*delta, &mut output, limit)?;
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

/// What librsync makes of a delta; `None`: it refuses.
fn librsync_patched(basis: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    librsync::Patch::new(Cursor::new(basis), delta).ok()?.read_to_end(&mut output).ok()?;
    Some(output)
}

fn librsync_signature(content: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    let mut job =
        librsync::Signature::with_options(content, BLOCK_LENGTH, STRONG_LENGTH, librsync::SignatureType::MD4).unwrap();
    job.read_to_end(&mut output).unwrap();
    output
}

fn librsync_delta(new: &[u8], mut signature: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    librsync::Delta::new(new, &mut signature).unwrap().read_to_end(&mut output).unwrap();
    output
}

#[test]
fn signatures_are_rdiffs_byte_for_byte_and_it_takes_our_deltas() {
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
        assert_eq!(signature.len() as u64, signature_length(old.len() as u64));
        let delta = delta_of(new, &signature).unwrap();
        let rdiffs = fs::read(path("delta")).unwrap();
        assert!(delta.len() <= rdiffs.len(), "{} to {} bytes", old.len(), new.len());
        assert!(patched(old, &delta, new.len() as u64).unwrap() == new);
        assert!(patched(old, &rdiffs, new.len() as u64).unwrap() == new);
        fs::write(path("delta"), delta).unwrap();
        rdiff(directory.path(), &["-f", "patch", "old", "delta", "patched"]);
        assert!(fs::read(path("patched")).unwrap() == new);
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
            assert_eq!(delta.len() as u64, literal_length(length as u64));
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

/// With the strong sum of this, and weak sums that an enemy chose.
fn hostile_signature(blocks: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut signature = signature_of(b"");
    for (number, weak) in blocks.enumerate() {
        signature.extend_from_slice(&weak.to_be_bytes());
        signature.extend_from_slice(&noise(16, number as u64));
    }
    signature
}

#[test]
fn signatures_made_to_keep_us_busy_do_not() {
    // librsync would take minutes for the first, and hours for the second: each position of the file asks for an MD4.
    let zeroes = vec![0; 4 << 20];
    let weak = sums::Rolling::of(&zeroes[..BLOCK_LENGTH]).sum();
    for signature in [hostile_signature((0..500_000).map(|_| 7)), hostile_signature((0..500_000).map(|_| weak))] {
        let delta = delta_of(&zeroes, &signature).unwrap();
        assert!(delta.len() > zeroes.len(), "only literal commands");
        assert!(patched(b"", &delta, 4 << 20).unwrap() == zeroes);
    }
}

#[test]
fn signatures_that_would_take_too_much_memory_get_the_whole_file() {
    let content = noise(10 * 2048, 1);
    let signature = signature_of(&content);
    for (blocks, literal) in [(9, true), (10, false)] {
        let bounds = Bounds { blocks };
        let mut output = Vec::new();
        delta(&mut &content[..], &signature, &mut output, bounds).unwrap();
        assert_eq!(output.len() > content.len(), literal);
        assert_eq!(is_literal(&signature, bounds).unwrap(), literal);
        assert_eq!(bounds.signature_length() < signature.len(), literal);
    }
}

#[test]
fn what_moved_is_found_wherever_it_is() {
    let basis = noise(1 << 20, 1);
    let block = |number: usize| &basis[number * BLOCK_LENGTH..][..BLOCK_LENGTH];
    let (short, odd) = (&basis[..], &basis[..(1 << 20) - 700]);
    let reversed: Vec<u8> = (0..512).rev().flat_map(|number| block(number).to_vec()).collect();
    let holes: Vec<u8> = (0..512).flat_map(|number| [block(number), &noise(number % 40, 3)].concat()).collect();
    for (old, new, expected) in [
        (short, [b"x", short].concat(), 100),
        (short, basis[1..].to_vec(), BLOCK_LENGTH + 100),
        (short, reversed, 512 * 10),
        (short, holes, 512 * (10 + 20 + 3)),
        (odd, [&noise(100, 5), odd].concat(), 200),
        (odd, [odd, &noise(100, 5)].concat(), BLOCK_LENGTH + 200),
        (odd, [&odd[odd.len() - 1348..], odd].concat(), 1348 + 100),
        (odd, odd[odd.len() - 1348..].to_vec(), 20),
    ] {
        let delta = delta_of(&new, &signature_of(old)).unwrap();
        assert!(delta.len() <= expected, "{} bytes, not {expected}", delta.len());
        assert!(librsync_patched(old, &delta).unwrap() == new);
    }
}

#[test]
fn a_delta_has_its_length_whatever_becomes_of_the_file() {
    for size in [1, 64, 65, 5000, LITERAL, LITERAL + 1, 100_000, 3 * LITERAL] {
        let content = noise(size, 4);
        let made = |content: &[u8]| {
            let mut output = Vec::new();
            let result = literal_delta(&mut &*content, size as u64, &mut output);
            assert_eq!(output.len() as u64, literal_length(size as u64));
            (result, output)
        };
        let (result, delta) = made(&content);
        result.unwrap();
        assert!(librsync_patched(b"", &delta).unwrap() == content);
        // It grew: the rest is for the next time.
        let (result, delta) = made(&[&content[..], b"more"].concat());
        result.unwrap();
        assert!(patched(b"", &delta, size as u64).unwrap() == content);
        for cut in [0, size / 2, size - 1] {
            let (result, delta) = made(&content[..cut]);
            assert!(matches!(result, Err(DeltaError::Shrunk)), "{result:?}");
            assert!(librsync_patched(b"", &delta).is_none(), "{size} cut to {cut}");
            assert!(matches!(patched(b"", &delta, size as u64), Err(DeltaError::BadDelta(_))));
        }
        let mut output = Vec::new();
        let result = literal_delta(&mut Broken(&content[..size / 2]), size as u64, &mut output);
        assert!(matches!(result, Err(DeltaError::Io { operation: READ_NEW, .. })), "{result:?}");
        assert_eq!(output.len() as u64, literal_length(size as u64));
        assert!(librsync_patched(b"", &output).is_none());
    }
}

#[test]
fn a_delta_may_make_as_much_as_allowed_and_no_more() {
    // Copies the whole basis again and again: 48 KiB that would become a gigabyte.
    let basis = noise(65_535, 9);
    let mut bomb = MAGIC.to_vec();
    for _ in 0..16_384 {
        bomb.extend_from_slice(&[0x46, 0, 0xff, 0xff]);
    }
    bomb.push(0);
    let mut output = Vec::new();
    let result = patch(&file_with(&basis), &mut &bomb[..], &mut output, 1_000_000);
    assert!(matches!(result, Err(DeltaError::TooLong { limit: 1_000_000 })));
    assert!(output.len() <= 1_000_000);

    let delta = delta_of(b"exactly this", &MISSING_BASIS).unwrap();
    assert_eq!(patched(b"", &delta, 12).unwrap(), b"exactly this");
    assert!(matches!(patched(b"", &delta, 11), Err(DeltaError::TooLong { limit: 11 })));
}

#[test]
fn copies_stay_within_the_basis() {
    for copy in [&[0x45, 0, 7][..], &[0x45, 6, 1], &[0x54, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1], &[0x45, 0, 0]] {
        let delta = [&MAGIC[..], copy, &[0]].concat();
        assert!(matches!(patched(b"potato", &delta, 100), Err(DeltaError::BadDelta(_))), "{copy:?}");
    }
    let delta = [&MAGIC[..], &[0x45, 0, 6, 0]].concat();
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
    told(patch(&file_with(&content), &mut Broken(&good[..5]), sink, 9000).map(drop), "receive the delta");
    told(patch(&file_with(&content), &mut &good[..], &mut Full, 9000).map(drop), "write the patched file");
    let directory = File::open("/").unwrap();
    let copying = [&MAGIC[..], &[0x45, 0, 6, 0]].concat();
    let result = patch(&directory, &mut &copying[..], sink, 9000);
    assert!(matches!(result, Err(DeltaError::Io { operation: READ_BASIS, .. })), "{result:?}");
    let result = patch(&file_with(&content), &mut &good[..good.len() - 1], sink, 9000);
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
        let signature = signature_of(&old);
        prop_assert!(signature == librsync_signature(&old));
        let delta = delta_of(&new, &signature).unwrap();
        prop_assert!(patched(&old, &delta, new.len() as u64).unwrap() == new);
        prop_assert!(librsync_patched(&old, &delta).unwrap() == new);
        let theirs = librsync_delta(&new, &signature);
        prop_assert!(patched(&old, &theirs, new.len() as u64).unwrap() == new);
    }

    #[test]
    fn files_of_few_different_blocks_arrive(
        old in prop::collection::vec(0u8..4, 0..80),
        new in prop::collection::vec((0u8..5, 0usize..3), 0..80),
        tail in 0usize..BLOCK_LENGTH,
    ) {
        let block = |kind: u8| noise(BLOCK_LENGTH, kind.into());
        let mut old: Vec<u8> = old.into_iter().flat_map(block).collect();
        old.truncate(old.len().saturating_sub(tail));
        let new: Vec<u8> =
            new.into_iter().flat_map(|(kind, odd)| [block(kind), vec![9; odd]].concat()).chain(noise(tail, 1)).collect();
        let delta = delta_of(&new, &signature_of(&old)).unwrap();
        prop_assert!(librsync_patched(&old, &delta).unwrap() == new);
        prop_assert!(patched(&old, &delta, new.len() as u64).unwrap() == new);
    }

    #[test]
    fn a_delta_means_what_it_means_to_librsync(
        commands in prop::collection::vec(prop_oneof![0u8..=0x56, 0u8..8, any::<u8>()], 0..60),
    ) {
        let basis = noise(300, 7);
        let delta = [&MAGIC[..], &commands].concat();
        let ours = patched(&basis, &delta, 1 << 20).ok();
        // Commands that librsync takes though they are none of its own making are refused here.
        if let Some(ours) = ours {
            prop_assert!(librsync_patched(&basis, &delta).unwrap() == ours);
        }
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
            prop_assert!(delta.starts_with(&MAGIC) && delta.ends_with(&[0]));
        }
        let _ = delta_of(&new, &sums);
    }

    #[test]
    fn any_delta_stays_below_the_limit(
        commands in prop::collection::vec(prop_oneof![0u8..=0x56, any::<u8>()], 0..300),
        limit in 0u64..5000,
    ) {
        let delta = [&MAGIC[..], &commands].concat();
        let mut output = Vec::new();
        let result = patch(&file_with(b"a basis of a few bytes"), &mut &delta[..], &mut output, limit);
        prop_assert!(output.len() as u64 <= limit);
        let told_apart = matches!(result, Ok(_) | Err(DeltaError::BadDelta(_) | DeltaError::TooLong { .. }));
        prop_assert!(told_apart, "{:?}", result);
        let _ = patch(&file_with(b""), &mut &commands[..], &mut io::sink(), limit);
    }
}
