package gateway

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// usedTokensFile in the state directory has a line for each token that let an
// agent in and could still be shown by another.
const usedTokensFile = "used_tokens"

const (
	// maxUsedTokens bounds what is remembered, some 200 bytes each. Only tokens
	// that verify are: who fills this up can sign tokens.
	maxUsedTokens = 1 << 18
	// usedTokenMargin is how long a token is remembered beyond its end, for the
	// leeway that expired ones are given, and for clocks that are set back.
	usedTokenMargin = 10 * time.Minute
	// minUsedTokenLines is the length from which the file is written anew, without
	// tokens that have expired, each time that it has doubled.
	minUsedTokenLines = 1024
)

// errTooManyTokens is what a token meets that cannot be remembered.
var errTooManyTokens = errors.New("too many tokens that let agents in have not expired yet: mint shorter-lived ones")

// tokenID tells the tokens of all origins apart.
type tokenID [sha256.Size]byte

// newTokenID makes the ID of a token by where it comes from and what it is called
// there.
func newTokenID(origin, name string) tokenID {
	return sha256.Sum256([]byte(origin + "\x00" + name))
}

// usedTokens remembers which agent a token has let in, so that it lets in no
// other. With a file it survives the gateway: a use counts once it is on the disk.
type usedTokens struct {
	path string           // empty: in memory alone
	max  int              // maxUsedTokens, less in tests
	now  func() time.Time // time.Now, another in tests

	mu    sync.Mutex // guards what follows
	used  map[tokenID]tokenUse
	file  *os.File
	size  int64 // of what is complete in the file
	lines int
	sweep int // how many lines are the time to write the file anew
}

type tokenUse struct {
	agent [ed25519.PublicKeySize]byte
	until int64 // Unix time from which the token verifies no more
}

// tokenLine is a line of the file.
type tokenLine struct {
	Version int    `json:"v"` // 1
	Token   []byte `json:"token"`
	Agent   []byte `json:"agent"`
	Until   int64  `json:"until"`
}

// openUsedTokens reads what is known in a directory. Without a directory nothing
// is known, and nothing is kept.
func openUsedTokens(dir string) (*usedTokens, error) {
	u := &usedTokens{max: maxUsedTokens, now: time.Now, used: make(map[tokenID]tokenUse)}
	if dir == "" {
		return u, nil
	}
	u.path = filepath.Join(dir, usedTokensFile)
	data, err := os.ReadFile(u.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("used tokens: %w", err)
	}
	if err := u.read(data); err != nil {
		return nil, fmt.Errorf("used tokens: %s: %w", u.path, err)
	}
	if err := u.rewrite(); err != nil {
		return nil, fmt.Errorf("used tokens: %w", err)
	}
	return u, nil
}

// read takes the lines of a file. The last may have been cut off: such a use was
// never answered.
func (u *usedTokens) read(data []byte) error {
	now := u.now().Unix()
	n := 0
	for line := range bytes.Lines(data) {
		n++
		var l tokenLine
		err := json.Unmarshal(line, &l)
		if err == nil && (l.Version != 1 || len(l.Token) != sha256.Size || len(l.Agent) != ed25519.PublicKeySize) {
			err = errors.New("it is not of version 1")
		}
		switch {
		case !bytes.HasSuffix(line, []byte("\n")):
			return nil
		case err != nil:
			return fmt.Errorf("line %d: %w: if the file cannot be restored, remove it once all tokens have expired that were minted by now", n, err)
		case l.Until > now:
			u.used[tokenID(l.Token)] = tokenUse{[ed25519.PublicKeySize]byte(l.Agent), l.Until}
		}
	}
	return nil
}

// take notes that a token, good until a time, lets in an agent. If it has let in
// another one, it returns that one's key. After an error nobody may be let in.
func (u *usedTokens) take(id tokenID, agent ed25519.PublicKey, until time.Time) (other ed25519.PublicKey, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if use, ok := u.used[id]; ok {
		if bytes.Equal(use.agent[:], agent) {
			return nil, nil
		}
		return use.agent[:], nil
	}
	if len(u.used) >= u.max || u.lines >= u.sweep {
		u.forget()
		if err := u.rewrite(); err != nil {
			return nil, err
		}
	}
	if len(u.used) >= u.max {
		return nil, errTooManyTokens
	}
	use := tokenUse{[ed25519.PublicKeySize]byte(agent), until.Add(usedTokenMargin).Unix()}
	if err := u.append(id, use); err != nil {
		return nil, err
	}
	u.used[id] = use
	return nil, nil
}

// forget drops tokens that have expired.
func (u *usedTokens) forget() {
	now := u.now().Unix()
	for id, use := range u.used {
		if use.until <= now {
			delete(u.used, id)
		}
	}
}

// append adds a line to the file. What was written of it in vain is taken back,
// so that the next does not run into it.
func (u *usedTokens) append(id tokenID, use tokenUse) error {
	if u.path == "" {
		u.lines++
		return nil
	}
	if u.file == nil {
		return errors.New("the file of used tokens could not be written anew")
	}
	line := use.line(id)
	_, err := u.file.WriteAt(line, u.size)
	if err == nil {
		err = u.file.Sync()
	}
	if err != nil {
		return errors.Join(err, u.file.Truncate(u.size))
	}
	u.size += int64(len(line))
	u.lines++
	return nil
}

func (use tokenUse) line(id tokenID) []byte {
	line, _ := json.Marshal(tokenLine{1, id[:], use.agent[:], use.until}) // has nothing that can fail
	return append(line, '\n')
}

// rewrite replaces the file by one with what is known now, and goes on with that.
func (u *usedTokens) rewrite() error {
	u.lines = len(u.used)
	u.sweep = max(minUsedTokenLines, 2*u.lines)
	if u.path == "" {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(u.path), usedTokensFile+".*") // with mode 0600
	if err != nil {
		return err
	}
	size, err := u.writeAll(f)
	if err == nil {
		err = os.Rename(f.Name(), u.path)
	}
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return err
	}
	u.close()
	u.file, u.size = f, size
	return syncDir(filepath.Dir(u.path))
}

func (u *usedTokens) writeAll(f *os.File) (size int64, err error) {
	w := bufio.NewWriter(f)
	for id, use := range u.used {
		n, _ := w.Write(use.line(id)) // Flush has the error
		size += int64(n)
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	return size, f.Sync()
}

// syncDir has the new name of a file survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// close closes the file.
func (u *usedTokens) close() {
	if u.file != nil {
		u.file.Close()
		u.file = nil
	}
}

// Close closes the file. Nothing can be taken any more if there is one.
func (u *usedTokens) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.close()
}

// agentFingerprint is how the log names an agent's key.
func agentFingerprint(key ed25519.PublicKey) string {
	k, err := ssh.NewPublicKey(key)
	if err != nil {
		return "invalid"
	}
	return ssh.FingerprintSHA256(k)
}
