package auth

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/crypto/ssh"
)

// maxKeyFile is far beyond any key; it keeps a path to /dev/zero from filling
// memory.
const maxKeyFile = 64 << 10

// LoadSigner reads a private key for SSH: OpenSSH's own format or PEM, without
// a passphrase. A file that others may read is refused.
func LoadSigner(path string) (ssh.Signer, error) {
	data, err := readSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return nil, fmt.Errorf("load key %s: it has a passphrase, which nobody could type when the service starts: remove it with ssh-keygen -p -f %[1]s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("load key %s: %w: make one with ssh-keygen -t ed25519 -N '' -f FILE", path, err)
	}
	if err := CheckKey(signer.PublicKey()); err != nil {
		return nil, fmt.Errorf("load key %s: %w", path, err)
	}
	return signer, nil
}

// LoadOrCreateSigner is LoadSigner, except that where there is no file it makes
// an Ed25519 key in OpenSSH's format, mode 0600, in a directory that is made
// with mode 0700 where there is none. created says whether it did. When several
// processes start at once, all return the same key.
func LoadOrCreateSigner(path string) (signer ssh.Signer, created bool, err error) {
	created, err = createIfMissing(path, func() (*pem.Block, error) {
		key, err := generateEd25519()
		if err != nil {
			return nil, err
		}
		return ssh.MarshalPrivateKey(key, "")
	})
	if err != nil {
		return nil, false, err
	}
	signer, err = LoadSigner(path)
	return signer, created, err
}

// LoadOrCreateEd25519 is LoadOrCreateSigner for keys that sign tokens: Ed25519
// in PEM, PKCS #8. The second result says whether it made the key.
func LoadOrCreateEd25519(path string) (ed25519.PrivateKey, bool, error) {
	signer, created, err := loadOrCreate(path, generateEd25519)
	if err != nil {
		return nil, false, err
	}
	key, ok := signer.(ed25519.PrivateKey)
	if !ok {
		return nil, false, fmt.Errorf("load key %s: it holds a key of type %T, expected Ed25519: make one with openssl genpkey -algorithm ed25519", path, signer)
	}
	return key, created, nil
}

// readSecretFile reads a file that only its owner may read.
func readSecretFile(path string) ([]byte, error) {
	data, mode, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	if isPublicFile(data) { // whose mode matters to nobody
		return nil, fmt.Errorf("%s is a public key: give %s", path, privateHalf(path))
	}
	if err := checkMode(path, mode); err != nil {
		return nil, err
	}
	return data, nil
}

// isPublicFile knows what ssh-keygen and openssl write as a public key.
func isPublicFile(data []byte) bool {
	_, _, _, _, err := ssh.ParseAuthorizedKey(data)
	return err == nil || bytes.HasPrefix(data, []byte("-----BEGIN PUBLIC KEY-----"))
}

func privateHalf(path string) string {
	if file, ok := strings.CutSuffix(path, ".pub"); ok {
		if _, err := os.Stat(file); err == nil {
			return "its private half, " + file
		}
	}
	return "the file with its private half"
}

func checkMode(path string, mode fs.FileMode) error {
	// Windows has no such bits; Go makes them up.
	if runtime.GOOS != "windows" && mode.Perm()&0o077 != 0 {
		return fmt.Errorf("%s can be read or changed by other users (mode %#o): run chmod 600 %[1]s", path, mode.Perm())
	}
	return nil
}

func readKeyFile(path string) ([]byte, fs.FileMode, error) {
	// Asked before it is opened: to open a pipe waits for somebody to write.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	// The mode is that of the file which is read, so that nobody can swap one
	// for the other in between.
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, 0, err
	}
	if len(data) > maxKeyFile {
		return nil, 0, fmt.Errorf("%s is larger than %d bytes: it is no key", path, maxKeyFile)
	}
	return data, info.Mode(), nil
}

// createIfMissing makes a key file unless there is one, and says whether it
// did.
func createIfMissing(path string, generate func() (*pem.Block, error)) (created bool, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	block, err := generate()
	if err != nil {
		return false, fmt.Errorf("create key %s: %w", path, err)
	}
	created, err = createFile(path, pem.EncodeToMemory(block))
	if err != nil {
		return false, fmt.Errorf("create key %s: %w", path, err)
	}
	return created, nil
}

// createFile writes a file that nobody ever sees half written, and that never
// replaces another: a hard link, unlike a rename, fails when the name is taken.
// created is false when another process was first.
func createFile(path string, data []byte) (created bool, err error) {
	dir := filepath.Dir(path)
	if err := makeKeyDir(dir); err != nil {
		return false, err
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	err = os.Link(f.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, syncDir(dir)
}

// makeKeyDir makes a directory for keys. In one that everybody may write to,
// somebody could put a key of their own in the place of ours.
func makeKeyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" && info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("everybody may write to directory %s (mode %#o): run chmod 700 %[1]s", dir, info.Mode().Perm())
	}
	return nil
}

// syncDir makes the new name outlast a crash. Windows cannot, and needs not.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
