package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// blocksFile in the state directory says whom the operator refuses.
const blocksFile = "blocks.json"

// maxBlocks bounds what an operator's script can make the gateway hold.
const maxBlocks = 10_000

// A Block is an operator's word that somebody, or a task, is refused whatever
// lets them in. One of Key, Identity and Task is set.
type Block struct {
	Key      string     `json:"key,omitempty"`      // fingerprint of a guest's key, or of the authority that signed its certificate
	Identity string     `json:"identity,omitempty"` // a guest's name, in lower case
	Task     string     `json:"task,omitempty"`
	Reason   string     `json:"reason,omitempty"` // for operators, and guests that are thrown out
	By       string     `json:"by,omitempty"`     // user who said so
	At       time.Time  `json:"at"`
	Until    *time.Time `json:"until,omitempty"` // nil: until it is taken back
}

// subject is whom a block is about.
type subject struct{ key, identity, task string }

func (b *Block) subject() subject { return subject{b.Key, lastingName(b.Identity), b.Task} }

// in reports whether the block is in force.
func (b *Block) in(now time.Time) bool { return b.Until == nil || now.Before(*b.Until) }

// An endedTask says that an operator ended the registrations of a task whose
// tokens were issued until then. A newer one may register.
type endedTask struct {
	Task   string    `json:"task"`
	Issued time.Time `json:"issued"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

// endedFor is how long that is remembered: no renewal is good for longer without
// a deadline.
const endedFor = 31 * 24 * time.Hour

// blocks is what the operator refuses. With a file it outlives the gateway, and is
// shared with one that drains beside its successor.
type blocks struct {
	path string // empty: in memory alone

	mu    sync.Mutex  // guards what follows
	seen  fs.FileInfo // of the file when it was read or written; nil: there was none
	list  map[subject]Block
	ended map[string]endedTask // by task
}

// blocksJSON is the file.
type blocksJSON struct {
	Version int         `json:"v"` // 1
	Blocks  []Block     `json:"blocks"`
	Ended   []endedTask `json:"ended"`
}

// openBlocks reads what a directory holds. An unreadable file is an error: those
// whom it refuses would be let in.
func openBlocks(dir string) (*blocks, error) {
	b := &blocks{list: make(map[subject]Block), ended: make(map[string]endedTask)}
	if dir == "" {
		return b, nil
	}
	b.path = filepath.Join(dir, blocksFile)
	_, err := b.refresh()
	return b, err
}

// refresh reads the file if another gateway has written it, and reports whether it
// had. On an error all stays as it was.
func (b *blocks) refresh() (changed bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reread()
}

// reread is refresh with b.mu held.
func (b *blocks) reread() (changed bool, err error) {
	if b.path == "" {
		return false, nil
	}
	f, err := os.Open(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("blocks: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("blocks: %w", err)
	}
	if b.seen != nil && os.SameFile(info, b.seen) && info.ModTime().Equal(b.seen.ModTime()) {
		return false, nil
	}
	var all blocksJSON
	if err = json.NewDecoder(f).Decode(&all); err == nil && all.Version != 1 {
		err = fmt.Errorf("version %d is not known", all.Version)
	}
	if err != nil {
		return false, fmt.Errorf("blocks: %s: %w: restore it, or remove it and block again whom it named", b.path, err)
	}
	clear(b.list)
	clear(b.ended)
	for _, block := range all.Blocks {
		b.list[block.subject()] = block
	}
	for _, e := range all.Ended {
		b.ended[e.Task] = e
	}
	b.seen = info
	return true, nil
}

// add begins a block, in the place of an older one of the same.
func (b *blocks) add(block Block) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.reread(); err != nil {
		return err
	}
	old, had := b.list[block.subject()]
	if !had && len(b.list) >= maxBlocks {
		return fmt.Errorf("there are %d blocks already: take some back", len(b.list))
	}
	b.list[block.subject()] = block
	err := b.save()
	if err != nil {
		delete(b.list, block.subject())
		if had {
			b.list[block.subject()] = old
		}
	}
	return err
}

// remove takes a block back, and reports whether there was one.
func (b *blocks) remove(s subject) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.reread(); err != nil {
		return false, err
	}
	block, ok := b.list[s]
	if !ok {
		return false, nil
	}
	delete(b.list, s)
	err := b.save()
	if err != nil {
		b.list[s] = block
	}
	return true, err
}

// end refuses a task's registrations whose tokens were issued until then.
func (b *blocks) end(task auth.TaskID, issued time.Time, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.reread(); err != nil {
		return err
	}
	old, had := b.ended[string(task)]
	b.ended[string(task)] = endedTask{Task: string(task), Issued: issued, Reason: reason, At: time.Now()}
	err := b.save()
	if err != nil {
		delete(b.ended, string(task))
		if had {
			b.ended[string(task)] = old
		}
	}
	return err
}

// save writes the file, without what is over. b.mu is held.
func (b *blocks) save() error {
	all := blocksJSON{Version: 1, Blocks: []Block{}, Ended: []endedTask{}}
	now := time.Now()
	for s, block := range b.list {
		if !block.in(now) {
			delete(b.list, s)
			continue
		}
		all.Blocks = append(all.Blocks, block)
	}
	for task, e := range b.ended {
		if now.Sub(e.At) > endedFor {
			delete(b.ended, task)
			continue
		}
		all.Ended = append(all.Ended, e)
	}
	if b.path == "" {
		return nil
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("blocks: %w", err)
	}
	if err := replaceFile(b.path, append(data, '\n')); err != nil {
		return fmt.Errorf("blocks: %w", err)
	}
	if b.seen, err = os.Stat(b.path); err != nil {
		b.seen = nil // and is read again
	}
	return nil
}

// blocksTick is how often a gateway that drains looks for what its successor was
// told.
const blocksTick = time.Second

// followBlocks has a gateway that drains throw out whom the operator blocks, or what
// tasks are ended, by its successor, which has the admin socket by then. It returns
// when ctx ends.
func (s *Server) followBlocks(ctx context.Context) {
	tick := time.NewTicker(blocksTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch changed, err := s.blocks.refresh(); {
		case err != nil:
			s.log.Error("cannot read what the next gateway blocks", "error", err)
		case changed:
			s.throwOutBlocked()
		}
	}
}

// throwOutBlocked ends the connections of all whom a block is about, and the tasks
// that were ended.
func (s *Server) throwOutBlocked() {
	over := make(map[auth.TaskID]bool)
	s.mu.Lock()
	for _, h := range s.hosts {
		if s.blocks.refusal(h.registration) != nil {
			over[h.task] = true
		}
	}
	s.mu.Unlock()
	s.kickGuests(func(g *guest) bool { return s.blocked(g) != nil }, endedByBlock, "an operator has blocked you")
	s.kickGuests(func(g *guest) bool { return over[g.task] }, endedByKick, "an operator ended the task")
	for task := range over {
		s.closeTunnels(string(task))
	}
}

// replaceFile writes a file, for its owner alone, that is whole at any time.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// all returns what is in force, the oldest first.
func (b *blocks) all() []Block {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := []Block{}
	now := time.Now()
	for _, block := range b.list {
		if block.in(now) {
			list = append(list, block)
		}
	}
	slices.SortFunc(list, func(x, y Block) int { return x.At.Compare(y.At) })
	return list
}

// find returns the block that is in force about one of them, nil if there is
// none.
func (b *blocks) find(subjects ...subject) *Block {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, s := range subjects {
		if block, ok := b.list[s]; ok && block.in(now) {
			return &block
		}
	}
	return nil
}

// ofKey returns the block about a key, or about the authority of a certificate.
func (b *blocks) ofKey(key ssh.PublicKey) *Block {
	var subjects []subject
	for _, print := range keyPrints(key) {
		subjects = append(subjects, subject{key: print})
	}
	return b.find(subjects...)
}

// keyPrints are the fingerprints that a key can be blocked by.
func keyPrints(key ssh.PublicKey) []string {
	if key == nil {
		return nil
	}
	prints := []string{ssh.FingerprintSHA256(plainKey(key))}
	if cert, ok := key.(*ssh.Certificate); ok {
		prints = append(prints, ssh.FingerprintSHA256(cert.SignatureKey))
	}
	return prints
}

// ofName returns the block about a guest's name.
func (b *blocks) ofName(name string) *Block {
	var subjects []subject
	for _, name := range namesOf(name) {
		subjects = append(subjects, subject{identity: name})
	}
	return b.find(subjects...)
}

// ofTask returns the block about a task.
func (b *blocks) ofTask(task auth.TaskID) *Block { return b.find(subject{task: string(task)}) }

// refusal is what the agent of a task is told that was ended or is blocked, nil
// if it may register.
func (b *blocks) refusal(reg registration) error {
	if block := b.ofTask(reg.task); block != nil {
		return blockedHost("an operator of this gateway has blocked task "+string(reg.task), block.Reason)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.ended[string(reg.task)]
	if !ok || reg.generation.After(e.Issued) {
		return nil
	}
	return blockedHost("an operator of this gateway has ended task "+string(reg.task), e.Reason)
}

func blockedHost(what, reason string) error {
	return &tunnel.Refusal{Code: tunnel.CodeBlocked, Message: what + because(reason)}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// A guard is an [auth.Authorizer] that refuses whom the operator has blocked, and
// revoked keys. It asks the one below in any case, so that it takes as long.
type guard struct {
	auth.Authorizer
	blocks  *blocks
	revoked *auth.RevokedFiles
}

// Authorize asks the Authorizer below, and refuses whom it should have refused.
func (g guard) Authorize(ctx context.Context, id auth.Identity, task auth.Task) (*ssh.Permissions, error) {
	p, err := g.Authorizer.Authorize(ctx, id, task)
	for _, block := range []*Block{g.blocks.ofKey(id.Key), g.blocks.ofTask(task.ID), g.blocks.ofName(auth.IdentityName(p))} {
		if block != nil {
			return nil, block.err()
		}
	}
	if id.Key != nil {
		if err := g.revoked.Check(id.Key); err != nil {
			return nil, err
		}
	}
	return p, err
}

// err is for the log alone.
func (b *Block) err() error {
	what := "key " + b.Key
	switch {
	case b.Identity != "":
		what = "identity " + b.Identity
	case b.Task != "":
		what = "task " + b.Task
	}
	return fmt.Errorf("%w: an operator has blocked %s%s", auth.ErrDenied, what, because(b.Reason))
}

// blocked returns the block that a guest who is in has met since.
func (s *Server) blocked(g *guest) *Block {
	for _, block := range []*Block{s.blocks.ofKey(g.identity.Key), s.blocks.ofName(g.identity.Name), s.blocks.ofTask(g.task)} {
		if block != nil {
			return block
		}
	}
	return nil
}
