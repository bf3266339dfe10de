//! End-to-end cases. Each file is one promise or one kind of attack; each test is named for what must hold.
