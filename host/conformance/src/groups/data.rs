//! Group `data`: sizes around the borders of pieces, bytes that are no text, and text beyond ASCII.

use std::sync::Arc;

use sandbox_host::types::{ExecSpec, Keep, WriteOptions};

use super::exec::limits;
use super::processes::all;
use crate::check::{Outcome, ensure, exited, pattern, printed, same};
use crate::table::checks;
use crate::world::Case;

checks! {
    "data.run-every-byte" ["exec", "program:cat"] "captured: output is bytes, not text" => run_every_byte;
    "data.run-sizes" ["exec", "program:cat"] "run: input and output of sizes around 64 KiB arrive unchanged" => run_sizes;
    "data.run-large" ["exec", "processes", "program:cat"] "run: 20 MB of input and output arrive unchanged" => run_large;
    "data.run-limit-border" ["exec", "program:cat"] "output-limits: a limit can lie anywhere in the data" => run_limit_border;
    "data.run-beyond-limit" ["exec", "program:sh", "program:head"] "output-limits: larger values count as 32 MiB; `total` counts all" => run_beyond_limit;
    "data.process-sizes" ["processes", "program:cat"] "read-output: sizes around 64 KiB and 1 MiB arrive unchanged" => process_sizes;
    "data.file-every-byte" ["files"] "write-file: content is bytes, not text" => file_every_byte;
    "data.file-sizes" ["files"] "write-file: sizes from 0 to beyond 1 MiB arrive unchanged" => file_sizes;
    "data.file-large" ["files"] "read-file: a file of several pieces arrives unchanged" => file_large;
    "data.file-names" ["files", "directories"] "location: names with spaces, quotes, line breaks and other scripts" => file_names;
    "data.tag-texts" ["create.tags"] "pair: values are UTF-8 text, and may be empty" => tag_texts;
}

/// All bytes, and sequences that are no UTF-8.
fn every_byte() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(b"\0\0\r\n\n\r\xff\xfe\xc3\x28\xf0\x9f\x98\x80\x1b[0m");
    bytes
}

/// Sizes around the borders at which providers cut data into pieces.
const SIZES: [usize; 9] = [0, 1, 4095, 4096, 65_535, 65_536, 65_537, 131_072, 131_073];

async fn run_cat(case: &Case, data: Vec<u8>) -> Outcome {
    let what = format!("`cat` with {} bytes", data.len());
    let all = limits(32 << 20, Keep::Head);
    let result = case.shared().await?.run_with(ExecSpec::new(["cat"]), data.clone(), all).await?;
    printed(&what, &result, data)
}

async fn run_every_byte(case: Arc<Case>) -> Outcome {
    run_cat(&case, every_byte()).await
}

async fn run_sizes(case: Arc<Case>) -> Outcome {
    for size in SIZES {
        run_cat(&case, pattern(size as u64, size)).await?;
    }
    Ok(())
}

async fn run_large(case: Arc<Case>) -> Outcome {
    run_cat(&case, pattern(5, 20_000_003)).await
}

async fn run_limit_border(case: Arc<Case>) -> Outcome {
    let data = pattern(6, 200_001);
    for max in [65_535, 65_536, 65_537, 131_072, 200_000, 200_001] {
        for keep in [Keep::Head, Keep::Tail] {
            let command = ExecSpec::new(["cat"]);
            let result = case.shared().await?.run_with(command, data.clone(), limits(max as u64, keep)).await?;
            let expected = if keep == Keep::Head { &data[..max] } else { &data[data.len() - max..] };
            same(&format!("output with a limit of {max}, {keep:?}"), &result.stdout.data, expected)?;
            let total = result.stdout.total;
            ensure!(total == data.len() as u64, "with a limit of {max}, `total` is {total} instead of {}", data.len());
        }
    }
    Ok(())
}

async fn run_beyond_limit(case: Arc<Case>) -> Outcome {
    const SIZE: usize = 40_000_000;
    let command = ExecSpec::shell(format!("head -c {SIZE} /dev/zero"));
    let result = case.shared().await?.run_with(command, [], limits(u64::MAX, Keep::Tail)).await?;
    exited("`head`", &result.verdict, 0)?;
    let (kept, total) = (result.stdout.data.len(), result.stdout.total);
    // A host may collect more than the limit of one call by several calls.
    ensure!(total == SIZE as u64, "`total` of {SIZE} bytes is {total}");
    ensure!((32 << 20..=SIZE).contains(&kept), "{kept} bytes of {SIZE} were kept, and the limit is 32 MiB");
    ensure!(result.stdout.data.iter().all(|byte| *byte == 0), "the output has other bytes than were printed");
    Ok(())
}

async fn process_sizes(case: Arc<Case>) -> Outcome {
    for size in SIZES.into_iter().chain([(1 << 20) - 1, 1 << 20, (1 << 20) + 1]) {
        let data = pattern(size as u64, size);
        let mut process = case.shared().await?.spawn(ExecSpec::new(["cat"])).await?;
        if let Some(mut stdin) = process.stdin.take() {
            let data = data.clone();
            tokio::spawn(async move {
                use tokio::io::AsyncWriteExt as _;
                let _ = stdin.write_all(&data).await;
                let _ = stdin.shutdown().await;
            });
        }
        let output = all(process).await?;
        same(&format!("output of {size} bytes"), &output.stdout, &data)?;
        exited("`cat`", &output.verdict, 0)?;
    }
    Ok(())
}

/// Writes a file and reads it again.
async fn there_and_back(case: &Case, path: &str, data: &[u8]) -> Outcome {
    let sandbox = case.shared().await?;
    sandbox.write_file(path, data, WriteOptions::default()).await?;
    let found = sandbox.read_file(path, 64 << 20).await?;
    same(&format!("a file of {} bytes", data.len()), &found, data)?;
    if case.declares("directories") {
        let size = sandbox.stat(path, true).await?.size;
        ensure!(size == data.len() as u64, "`stat` of a file of {} bytes says {size}", data.len());
    }
    Ok(())
}

async fn file_every_byte(case: Arc<Case>) -> Outcome {
    there_and_back(&case, &case.path("file"), &every_byte()).await
}

async fn file_sizes(case: Arc<Case>) -> Outcome {
    let path = case.path("file");
    for size in SIZES.into_iter().chain([(1 << 20) - 1, (1 << 20) + 1]) {
        there_and_back(&case, &path, &pattern(size as u64, size)).await?;
    }
    Ok(())
}

async fn file_large(case: Arc<Case>) -> Outcome {
    there_and_back(&case, &case.path("file"), &pattern(7, 10_000_019)).await
}

async fn file_names(case: Arc<Case>) -> Outcome {
    let folder = case.path("folder");
    let names = [
        "two words",
        "it's",
        "\"$HOME\"",
        "`id`",
        "back\\slash",
        "new\nline",
        "-rf",
        "*",
        "ü\u{141}\u{1F600}",
        ".hidden",
        &"n".repeat(255),
    ];
    for name in names {
        there_and_back(&case, &format!("{folder}/{name}"), name.as_bytes()).await?;
    }
    let mut expected: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    expected.sort();
    let found: Vec<_> =
        case.shared().await?.list_directory(&folder).await?.into_iter().map(|entry| entry.name).collect();
    ensure!(found == expected, "the directory has the entries {found:?}");
    Ok(())
}

async fn tag_texts(case: Arc<Case>) -> Outcome {
    let texts =
        [("empty", ""), ("script", "ü\u{141}\u{1F600}"), ("odd", "a=b 'c' \"d\" \\ $e"), ("long", &"x".repeat(200))];
    let spec = texts.iter().fold(case.spec(), |spec, (name, value)| spec.tag(*name, *value));
    let found = case.create(spec).await?.tags().await?;
    for (name, value) in texts {
        let right = found.iter().any(|(one, other)| one == name && other == value);
        ensure!(right, "the tag `{name}` with the value {value:?} is not among {found:?}");
    }
    Ok(())
}
