package auth

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func modeOf(t testing.TB, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func entries(t testing.TB, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestLoadOrCreateSigner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "keys")
	path := filepath.Join(dir, "host_ed25519")
	signer, created, err := LoadOrCreateSigner(path)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	if runtime.GOOS != "windows" && (modeOf(t, path) != 0o600 || modeOf(t, dir) != 0o700 || modeOf(t, filepath.Dir(dir)) != 0o700) {
		t.Errorf("modes are %v in %v in %v", modeOf(t, path), modeOf(t, dir), modeOf(t, filepath.Dir(dir)))
	}
	if names := entries(t, dir); len(names) != 1 {
		t.Errorf("left behind: %q", names)
	}
	if out := keygen(t, dir, "-y", "-f", path); !strings.HasPrefix(out, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))) {
		t.Errorf("ssh-keygen reads another key: %s", out)
	}
	again, created, err := LoadOrCreateSigner(path)
	if err != nil || created || ssh.FingerprintSHA256(again.PublicKey()) != ssh.FingerprintSHA256(signer.PublicKey()) {
		t.Errorf("the second time: %v, created %v, %v", again, created, err)
	}
}

func TestLoadOrCreateEd25519(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "renewal.pem")
	key, created, err := LoadOrCreateEd25519(path)
	if err != nil || !created || !bytes.HasPrefix(readFile(t, path), []byte("-----BEGIN PRIVATE KEY-----\n")) {
		t.Fatalf("created %v, %v", created, err)
	}
	again, created, err := LoadOrCreateEd25519(path)
	if err != nil || created || !again.Equal(key) {
		t.Errorf("the second time: created %v, %v", created, err)
	}
	signing, err := LoadTokenKey(path)
	if loaded, ok := signing.(ed25519.PrivateKey); err != nil || !ok || !loaded.Equal(key) {
		t.Errorf("as a token key: %T, %v", signing, err)
	}
}

// What is there is never replaced, even where it cannot be used.
func TestExistingFilesAreKept(t *testing.T) {
	dir := t.TempDir()
	for what, path := range map[string]string{
		"an empty file": writeFile(t, 0o600, nil, dir, "empty"),
		"another file":  writeFile(t, 0o600, []byte("notes\n"), dir, "notes"),
		"a directory":   filepath.Dir(writeFile(t, 0o600, nil, t.TempDir(), "x")),
		"a dead link":   deadLink(t, dir),
	} {
		before := entries(t, dir)
		if _, created, err := LoadOrCreateSigner(path); err == nil || created || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: created %v, %v", what, created, err)
		}
		if _, created, err := LoadOrCreateEd25519(path); err == nil || created || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: created %v, %v", what, created, err)
		}
		if after := entries(t, dir); len(after) != len(before) {
			t.Errorf("%s: %q became %q", what, before, after)
		}
	}
	if string(readFile(t, dir, "notes")) != "notes\n" {
		t.Error("a file was replaced")
	}
}

func deadLink(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKeysThatOthersCanReadAreRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := t.TempDir()
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "", "-f", "id")
	id := filepath.Join(dir, "id")
	secret := writeFile(t, 0o600, someSecret, dir, "secret")
	pemKey := filepath.Join(dir, "pem")
	if _, _, err := LoadOrCreateEd25519(pemKey); err != nil {
		t.Fatal(err)
	}
	loads := []struct {
		path string
		load func(path string) error
	}{
		{id, func(p string) error { _, err := LoadSigner(p); return err }},
		{id, func(p string) error { _, _, err := LoadOrCreateSigner(p); return err }},
		{pemKey, func(p string) error { _, _, err := LoadOrCreateEd25519(p); return err }},
		{pemKey, func(p string) error { _, err := LoadTokenKey(p); return err }},
		{secret, func(p string) error { _, err := LoadTokenKey(p); return err }},
		{secret, func(p string) error { _, err := LoadTokenVerifyKeys(p); return err }},
	}
	for mode, ok := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o700: true, 0o640: false, 0o604: false, 0o620: false, 0o602: false, 0o601: false, 0o610: false, 0o644: false, 0o666: false} {
		for i, l := range loads {
			if err := os.Chmod(l.path, mode); err != nil {
				t.Fatal(err)
			}
			err := l.load(l.path)
			if (err == nil) != ok {
				t.Errorf("mode %#o, loader %d: %v", mode, i, err)
			}
			if err != nil && !strings.Contains(err.Error(), "chmod 600 "+l.path) {
				t.Errorf("mode %#o, loader %d: %v does not say what to do", mode, i, err)
			}
		}
	}
}

func TestNoKeysInADirectoryForEverybody(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	for mode, ok := range map[fs.FileMode]bool{0o700: true, 0o755: true, 0o770: true, 0o777 | fs.ModeSticky: true, 0o777: false, 0o703: false} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := LoadOrCreateSigner(filepath.Join(dir, "key"))
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "chmod 700 "+dir) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

func TestLoadSigner(t *testing.T) {
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"ed25519": {"-t", "ed25519"}, "ecdsa": {"-t", "ecdsa"}, "rsa": {"-t", "rsa", "-b", "2048"}, "pem": {"-t", "rsa", "-b", "2048", "-m", "PEM"}, "pkcs8": {"-t", "ecdsa", "-m", "PKCS8"},
	} {
		keygen(t, dir, append(args, "-q", "-N", "", "-f", name)...)
		signer, err := LoadSigner(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := parsePublicKey(t, readFile(t, dir, name+".pub")); ssh.FingerprintSHA256(want) != ssh.FingerprintSHA256(signer.PublicKey()) {
			t.Errorf("%s: another key", name)
		}
	}
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "secret", "-f", "locked")
	keygen(t, dir, "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", "weak")
	public := writeFile(t, 0o600, readFile(t, dir, "rsa.pub"), dir, "public")
	for path, want := range map[string]string{
		filepath.Join(dir, "locked"):  "ssh-keygen -p -f " + filepath.Join(dir, "locked"),
		filepath.Join(dir, "weak"):    "1024 bits",
		filepath.Join(dir, "missing"): "no such file",
		public:                        "is a public key: give the file with its private half",
		filepath.Join(dir, "rsa.pub"): "is a public key: give its private half, " + filepath.Join(dir, "rsa"), // whatever its mode
		dir:                           "not a regular file",
		"/dev/null":                   "not a regular file",
		writeFile(t, 0o600, bytes.Repeat([]byte("x"), maxKeyFile+1), dir, "huge"): "larger than",
	} {
		if _, err := LoadSigner(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// A pipe in the place of a key must not hold up the start for ever.
func TestLoadSignerDoesNotWaitForAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if out, err := exec.CommandContext(t.Context(), program(t, "mkfifo"), "-m", "600", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	done := make(chan error, 1)
	go func() { _, err := LoadSigner(path); done <- err }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%v", err)
		}
	case <-time.After(30 * time.Second):
		if w, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
			w.Close()
		}
		t.Error("it waits for somebody to write")
	}
}

const createEnv = "STAGEDOOR_TEST_CREATE_KEY"

// TestCreateInAnotherProcess is what TestConcurrentCreation runs many times
// over.
func TestCreateInAnotherProcess(t *testing.T) {
	path := os.Getenv(createEnv)
	if path == "" {
		t.Skip("run by TestConcurrentCreation")
	}
	signer, created, err := LoadOrCreateSigner(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("key %s created=%v", ssh.FingerprintSHA256(signer.PublicKey()), created)
}

// Two processes that start at once must agree upon one key, or one would serve
// with a key that is on no disk.
func TestConcurrentCreation(t *testing.T) {
	for round := range 5 {
		dir := t.TempDir()
		path := filepath.Join(dir, "new", "key")
		outputs := make([]string, 6)
		var running sync.WaitGroup
		for i := range outputs {
			running.Go(func() {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCreateInAnotherProcess$", "-test.v")
				cmd.Env = append(os.Environ(), createEnv+"="+path)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("%v: %s", err, out)
				}
				outputs[i] = string(out)
			})
		}
		running.Wait()
		signer, err := LoadSigner(path)
		if err != nil {
			t.Fatal(err)
		}
		created := 0
		for _, out := range outputs {
			if !strings.Contains(out, "key "+ssh.FingerprintSHA256(signer.PublicKey())+" ") {
				t.Errorf("round %d: a process has another key than the file: %s", round, out)
			}
			created += strings.Count(out, "created=true")
		}
		if created != 1 {
			t.Errorf("round %d: %d processes created it", round, created)
		}
		if names := entries(t, filepath.Dir(path)); len(names) != 1 {
			t.Errorf("round %d: left behind: %q", round, names)
		}
	}
}

func TestConcurrentCreationInOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "key.pem")
	keys := make([]ed25519.PrivateKey, 16)
	var running sync.WaitGroup
	for i := range keys {
		running.Go(func() {
			var err error
			if keys[i], _, err = LoadOrCreateEd25519(path); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	for _, key := range keys {
		if !key.Equal(keys[0]) {
			t.Error("two keys")
		}
	}
}

func TestLoadTokenVerifyKeys(t *testing.T) {
	dir := t.TempDir()
	openssl := func(args ...string) {
		cmd := exec.CommandContext(t.Context(), program(t, "openssl"), args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	openssl("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
	openssl("pkey", "-in", "key.pem", "-pubout", "-out", "pub.pem")
	openssl("genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "rsa.pem")
	openssl("pkey", "-in", "rsa.pem", "-pubout", "-out", "rsapub.pem")
	openssl("rand", "-hex", "-out", "hex", "32")
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "", "-f", "ssh")
	for _, name := range []string{"key.pem", "hex", "rsa.pem"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// A pair that openssl made mints and verifies.
	signing, err := LoadTokenKey(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "pub.pem"), 0o644); err != nil { // a public key may be read by all
		t.Fatal(err)
	}
	verifying, err := LoadTokenVerifyKeys(filepath.Join(dir, "pub.pem"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := MintToken(signing, Token{Task: someTask, IssuedAt: noon, Expires: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifierFor(verifying...).Verify(t.Context(), raw); err != nil {
		t.Error(err)
	}

	hex := bytes.TrimSpace(readFile(t, dir, "hex"))
	for _, load := range []func(string) (any, error){LoadTokenKey, loadOneVerifyKey} {
		if secret, err := load(filepath.Join(dir, "hex")); err != nil || !bytes.Equal(secret.([]byte), hex) {
			t.Errorf("%T, %v", secret, err)
		}
		crlf := writeFile(t, 0o600, append(hex, "\r\n"...), dir, "crlf")
		if secret, err := load(crlf); err != nil || !bytes.Equal(secret.([]byte), hex) {
			t.Errorf("a line break of Windows: %q, %v", secret, err)
		}
	}

	pub := readFile(t, dir, "pub.pem")
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":             {nil, "0 bytes"},
		"a short secret":      {[]byte("hunter2\n"), "openssl rand"},
		"white space":         {bytes.Repeat([]byte("\n"), 64), "0 bytes"},
		"a private key":       {readFile(t, dir, "key.pem"), "openssl pkey"},
		"a short RSA key":     {readFile(t, dir, "rsapub.pem"), "1024 bits"},
		"a damaged PEM":       {bytes.Replace(pub, []byte("-----END"), []byte("-----FIN"), 1), "PEM"},
		"an indented PEM":     {append([]byte("  "), bytes.ReplaceAll(pub, []byte("\n"), []byte("\n  "))...), ""},
		"an SSH public key":   {readFile(t, dir, "ssh.pub"), "SSH public key"},
		"an SSH private key":  {readFile(t, dir, "ssh"), "private key"},
		"a PEM without lines": {bytes.ReplaceAll(pub, []byte("\n"), nil), "PEM"},
		"a private web key":   {[]byte(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`), "private key"},
		"other JSON":          {[]byte(`{"password":"0123456789abcdef0123456789abcdef"}`), "no key for"},
		"a certificate":       {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "CERTIFICATE"},
		"base64 of a public":  {publicBase64(t, pub), "public key"},
	} {
		key, err := LoadTokenVerifyKeys(writeFile(t, 0o600, c.data, dir, "case"))
		if err == nil || key != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %T, %v, want %q", what, key, err, c.want)
		}
		if err != nil && len(c.data) > 20 && strings.Contains(err.Error(), string(c.data[:20])) && what != "a PEM without lines" {
			t.Errorf("%s: the error holds what is in the file: %v", what, err)
		}
	}
	for name, want := range map[string]string{"rsa.pem": "1024 bits", "pub.pem": "is a public key", "ssh": "openssl genpkey"} {
		path := writeFile(t, 0o600, readFile(t, dir, name), dir, "case")
		if key, err := LoadTokenKey(path); err == nil || key != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s to mint with: %T, %v", name, key, err)
		}
	}
	for _, load := range []func(string) (any, error){LoadTokenKey, loadOneVerifyKey} {
		if _, err := load(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
}

func loadOneVerifyKey(path string) (any, error) {
	keys, err := LoadTokenVerifyKeys(path)
	if err != nil || len(keys) != 1 {
		return nil, err
	}
	return keys[0], nil
}

// publicBase64 is what between the lines of a PEM is, as some secret stores
// keep it.
func publicBase64(t testing.TB, pub []byte) []byte {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(string(pub)), "\n")
	joined := strings.Join(lines[1:len(lines)-1], "")
	if _, err := base64.StdEncoding.DecodeString(joined); err != nil {
		t.Fatal(err)
	}
	return []byte(joined)
}
