//! End-to-end cases. Each file is one promise or one kind of attack; each test is named for what must hold.

mod whole_path; // from an archive to a patched node, and then nothing more to do
