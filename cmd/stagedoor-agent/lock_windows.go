package main

import "os"

// lockFile makes a file that must not be there: who removes it has had it open.
func lockFile(path string) (*os.File, error) {
	os.Remove(path) // fails while it is open
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
}
