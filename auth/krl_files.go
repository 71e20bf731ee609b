package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// maxRevokedKeys bounds what a file may hold, in bytes.
	maxRevokedKeys = 16 << 20
	// revokedInterval is how often Watch looks at the files.
	revokedInterval = 2 * time.Second
	// racyTime is for how long after a change a file may change again and look
	// the same: its time is that of a clock which ticks slowly.
	racyTime = 2 * time.Second
)

// RevokedFiles are files of [RevokedKeys] which are read again when they change,
// each time that they are asked and by Watch. While one of them cannot be read,
// every key is revoked: as under sshd, nobody can tell who is good.
//
// It may be used by many goroutines at once. The nil value revokes nobody.
type RevokedFiles struct {
	log   *slog.Logger
	files []*revokedFile
}

// A revokedFile is one of them.
type revokedFile struct {
	path string

	mu      sync.Mutex // guards what follows
	info    fs.FileInfo
	read    time.Time // when it was
	sum     [sha256.Size]byte
	list    *RevokedKeys
	err     error // why it could not be read
	version int   // counts how often something else was in it
}

// OpenRevokedFiles reads the files. The error names the first that cannot be used;
// one that other users can write to is not. log takes what becomes of them later,
// and may be nil.
func OpenRevokedFiles(log *slog.Logger, paths ...string) (*RevokedFiles, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &RevokedFiles{log: log}
	for _, path := range paths {
		f := &revokedFile{path: path}
		if err := f.load(); err != nil {
			return nil, err
		}
		r.files = append(r.files, f)
	}
	return r, nil
}

// Check returns why a key or certificate is revoked, by the files as they are now:
// an error that wraps [ErrDenied]. It is nil if none of them revokes it.
func (r *RevokedFiles) Check(key ssh.PublicKey) error {
	if r == nil {
		return nil
	}
	lists, _, err := r.all()
	if err != nil {
		return denied("nobody can tell whether the key is revoked: %v", err)
	}
	return lists.check(key)
}

// Watch calls changed when it begins, and whenever something else is in the files
// and they could be read: whoever got in by then may be revoked now, which check
// tells as Check does. It returns when ctx ends.
func (r *RevokedFiles) Watch(ctx context.Context, changed func(check func(ssh.PublicKey) error)) {
	if r == nil || len(r.files) == 0 {
		return
	}
	tick := time.NewTicker(revokedInterval)
	defer tick.Stop()
	seen := 0
	for {
		// With what they hold now: should a file become unreadable meanwhile, it
		// revokes nobody who is in.
		lists, version, err := r.all()
		if err == nil && version != seen {
			seen = version
			changed(lists.check)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// revokedLists are several that all count.
type revokedLists []*RevokedKeys

func (l revokedLists) check(key ssh.PublicKey) error {
	for _, list := range l {
		if err := list.Check(key); err != nil {
			return err
		}
	}
	return nil
}

// all returns what the files hold now. The version grows when that changes.
func (r *RevokedFiles) all() (lists revokedLists, version int, err error) {
	for _, f := range r.files {
		list, v, err := f.current(r.log)
		if err != nil {
			return nil, 0, err
		}
		lists, version = append(lists, list), version+v
	}
	return lists, version, nil
}

// current is what the file holds now.
func (f *revokedFile) current(log *slog.Logger) (list *RevokedKeys, version int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if info, err := os.Stat(f.path); err == nil && f.err == nil && f.same(info) {
		return f.list, f.version, nil
	}
	before, was := f.version, f.err
	f.err = f.load()
	switch {
	case f.err != nil && was == nil:
		log.Error("nobody can sign in with a key: a list of revoked keys cannot be read; mend it", "file", f.path, "error", f.err)
	case f.err == nil && (was != nil || f.version != before):
		log.Info("list of revoked keys read", "file", f.path)
	}
	return f.list, f.version, f.err
}

// same tells whether a file is the one that was read. f.mu is held.
func (f *revokedFile) same(info fs.FileInfo) bool {
	return os.SameFile(f.info, info) && info.Size() == f.info.Size() && info.ModTime().Equal(f.info.ModTime()) &&
		f.read.Sub(info.ModTime()).Abs() > racyTime
}

// load reads the file, and parses it if something else is in it. f.mu is held.
func (f *revokedFile) load() error {
	read := time.Now()
	data, info, err := readRevokedFile(f.path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	if f.list == nil || sum != f.sum {
		list, err := ParseRevokedKeys(f.path, data)
		if err != nil {
			return err
		}
		f.list, f.sum = list, sum
		f.version++
	}
	f.info, f.read = info, read
	return nil
}

func readRevokedFile(path string) ([]byte, fs.FileInfo, error) {
	// Asked before it is opened: to open a pipe waits for somebody to write.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o022 != 0 {
		return nil, nil, fmt.Errorf("%s can be changed by other users (mode %#o), who could take a key off it: run chmod go-w %[1]s", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxRevokedKeys+1))
	if err == nil && len(data) > maxRevokedKeys {
		err = fmt.Errorf("%s is larger than %d MiB", path, maxRevokedKeys>>20)
	}
	return data, info, err
}
