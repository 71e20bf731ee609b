//go:build unix

package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile makes a file and locks it, until it is closed or this process has
// ended. Whoever removes the file does so under the lock: so one that is not at
// its path any more counts for nothing.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		locked, err := f.Stat()
		if err == nil {
			if named, err := os.Stat(path); err == nil && os.SameFile(locked, named) {
				return f, nil
			}
		}
		f.Close()
	}
}
