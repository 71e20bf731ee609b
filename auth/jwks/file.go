package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// maxFile bounds a key file in bytes, maxFiles how many a directory may have.
const (
	maxFile  = 512 << 10
	maxFiles = 256
)

// readFiles returns a loader of the keys in a file, or in all files of a
// directory but those whose names begin with a dot. One file that cannot be
// read fails all: a key that silently does not count costs somebody a day.
func readFiles(path string) loader {
	return func(context.Context, *snapshot) (*snapshot, error) {
		files, err := keyFiles(path)
		if err != nil {
			return nil, err
		}
		var s snapshot
		for _, file := range files {
			data, err := readKeyFile(file)
			if err != nil {
				return nil, err
			}
			keys, err := Parse(data)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			s.keys = append(s.keys, keys...)
		}
		switch {
		case len(s.keys) == 0:
			return nil, errors.New("there is no key in it")
		case len(s.keys) > maxKeys:
			return nil, fmt.Errorf("it holds %d keys, %d are allowed", len(s.keys), maxKeys)
		}
		return &s, nil
	}
}

func keyFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	if err := checkMode(path, info.Mode()); err != nil && info.Mode()&fs.ModeSticky == 0 {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // of editors, and of directories that Kubernetes mounts
		}
		files = append(files, filepath.Join(path, e.Name()))
	}
	if len(files) > maxFiles {
		return nil, fmt.Errorf("it has %d files, %d are allowed", len(files), maxFiles)
	}
	return files, nil
}

// readKeyFile reads a file that others may read but not change: a public key is
// no secret, but whoever can put theirs in its place is believed.
func readKeyFile(path string) ([]byte, error) {
	// Asked before it is opened: to open a pipe waits for somebody to write.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkMode(path, info.Mode()); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes: it is no key set", path, maxFile)
	}
	return data, err
}

func checkMode(path string, mode fs.FileMode) error {
	// Windows has no such bits; Go makes them up.
	if runtime.GOOS != "windows" && mode&0o002 != 0 {
		return fmt.Errorf("everybody may change %s (mode %#o): run chmod o-w %[1]s", path, mode.Perm())
	}
	return nil
}
