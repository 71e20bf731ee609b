package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// maxTokenKeys is how many keys a directory may hold: a token may have to be tried
// with each.
const maxTokenKeys = 256

// LoadTokenVerifyKeys reads what a TokenVerifier verifies with from a file or from
// all files of a directory. A file holds public keys, Ed25519, P-256 or RSA of 2048
// bits or more, one or several in PEM or as a JSON web key set, or else a shared
// secret, which is the file without a line break at its end, 32 bytes or more, and
// which others may not be able to read. Whatever looks like another kind of key is
// refused and never taken for a secret: a public key is none.
//
// Of a directory, files whose names begin with a dot and editors' backups are left
// out, and so are directories below it. One other file that cannot be used fails
// all: a key that silently does not count costs somebody a day. What others can
// change is refused, as they could add a key of theirs. Errors name the file.
func LoadTokenVerifyKeys(path string) ([]any, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load token key: %w", err)
	}
	if !info.IsDir() {
		return loadTokenVerifyFile(path, parseSecret)
	}
	if err := checkUnchangeable(path, info.Mode()); err != nil {
		return nil, fmt.Errorf("load token keys: %w", err)
	}
	keys, err := loadTokenVerifyDir(path)
	switch {
	case err != nil:
		return nil, err
	case len(keys) == 0:
		return nil, fmt.Errorf("load token keys: there is no key in the directory %s", path)
	case len(keys) > maxTokenKeys:
		return nil, fmt.Errorf("load token keys: %s holds %d keys, %d are allowed", path, len(keys), maxTokenKeys)
	}
	return keys, nil
}

func loadTokenVerifyDir(dir string) (keys []any, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("load token keys: %w", err)
	}
	if len(entries) > 2*maxTokenKeys {
		return nil, fmt.Errorf("load token keys: %s has %d files, %d are allowed", dir, len(entries), 2*maxTokenKeys)
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		if isLeftover(e.Name()) {
			continue
		}
		info, err := os.Stat(file) // of what a link leads to: Kubernetes mounts keys so
		if err != nil {
			return nil, fmt.Errorf("load token keys: %w", err)
		}
		if info.IsDir() {
			continue
		}
		found, err := loadTokenVerifyFile(file, parseWord)
		if err != nil {
			return nil, err
		}
		keys = append(keys, found...)
	}
	return keys, nil
}

// isLeftover knows what editors and package managers leave beside a file.
func isLeftover(name string) bool {
	ends := []string{"~", ".bak", ".orig", ".swp", ".tmp", ".rpmsave", ".rpmnew", ".dpkg-old", ".dpkg-new", ".dpkg-dist"}
	ends = append(ends, "#")
	return strings.HasPrefix(name, ".") || slices.ContainsFunc(ends, func(end string) bool { return strings.HasSuffix(name, end) })
}

// loadTokenVerifyFile reads a file, of which secret makes what is not public.
func loadTokenVerifyFile(path string, secret func([]byte) ([]byte, error)) ([]any, error) {
	data, mode, err := readKeyFile(path)
	if err != nil {
		return nil, fmt.Errorf("load token key: %w", err)
	}
	if isPEM(data) || isJSON(data) {
		if err := checkUnchangeable(path, mode); err != nil {
			return nil, fmt.Errorf("load token key: %w", err)
		}
		keys, err := parsePublic(data)
		if err != nil {
			return nil, fmt.Errorf("load token key %s: %w", path, err)
		}
		return keys, nil
	}
	key, err := secret(data)
	if err != nil {
		return nil, fmt.Errorf("load token key %s: %w", path, err)
	}
	if err := checkMode(path, mode); err != nil {
		return nil, fmt.Errorf("load token key: %w", err)
	}
	return []any{key}, nil
}

// parseWord is parseSecret for a file that nobody named: a text about the keys
// must not become one that all who read it know.
func parseWord(data []byte) ([]byte, error) {
	secret, err := parseSecret(data)
	if err == nil && strings.Trim(string(secret), printableASCII) != "" {
		return nil, errors.New("it is neither a public key nor a shared secret of one word: keep nothing else in the directory")
	}
	return secret, err
}

// checkUnchangeable is for what all may read, but only its owner and their group
// may change.
func checkUnchangeable(path string, mode fs.FileMode) error {
	if runtime.GOOS != "windows" && mode.Perm()&0o002 != 0 {
		return fmt.Errorf("everybody may change %s (mode %#o): run chmod o-w %[1]s", path, mode.Perm())
	}
	return nil
}
