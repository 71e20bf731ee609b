package gateway

import (
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
)

// rememberedFile in the state directory says whose keys are whose.
const rememberedFile = "remembered_keys.json"

// maxRemembered bounds what is remembered. Beyond it, what ends first goes.
const maxRemembered = 4096

// A memory is a person's word that a key is theirs.
type memory struct {
	Key    []byte      `json:"key"` // SSH wire format
	Person auth.Person `json:"person"`
	Until  time.Time   `json:"until"`
}

func (m memory) in(now time.Time) bool { return now.Before(m.Until) }

// rememberedKeys are the keys that people said are theirs when they signed in by a
// browser. Nobody proved that: a key says who somebody is once it is proved, and if
// nobody else said that it is theirs. With a file it outlives the gateway.
type rememberedKeys struct {
	path string // empty: in memory alone
	most int    // maxRemembered, less in tests

	mu   sync.Mutex // guards what follows
	keys map[string][]memory
	n    int // of memories
}

// rememberedJSON is the file.
type rememberedJSON struct {
	Version int      `json:"v"` // 1
	Keys    []memory `json:"keys"`
}

func openRemembered(dir string) (*rememberedKeys, error) {
	k := &rememberedKeys{most: maxRemembered, keys: make(map[string][]memory)}
	if dir == "" {
		return k, nil
	}
	k.path = filepath.Join(dir, rememberedFile)
	data, err := os.ReadFile(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, fmt.Errorf("remembered keys: %w", err)
	}
	var all rememberedJSON
	if err = json.Unmarshal(data, &all); err == nil && all.Version != 1 {
		err = fmt.Errorf("version %d is not known", all.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("remembered keys: %s: %w: remove it, and people sign in once more", k.path, err)
	}
	now := time.Now()
	for _, m := range all.Keys {
		if m.in(now) {
			k.keys[string(m.Key)] = append(k.keys[string(m.Key)], m)
			k.n++
		}
	}
	return k, nil
}

// people are those who said that a key is theirs.
func (k *rememberedKeys) people(key ssh.PublicKey) (people []*auth.Person) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, m := range k.keys[keyID(key)] {
		if m.in(now) {
			people = append(people, &m.Person)
		}
	}
	return people
}

// add remembers keys as a person's, instead of what they said before.
func (k *rememberedKeys) add(keys []ssh.PublicKey, who *auth.Person, until time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget(time.Now())
	for _, key := range keys {
		id := keyID(key)
		others := slices.DeleteFunc(k.keys[id], func(m memory) bool { return m.Person.Provider == who.Provider && m.Person.ID == who.ID })
		k.n += 1 + len(others) - len(k.keys[id])
		k.keys[id] = append(others, memory{key.Marshal(), *who, until.UTC()})
	}
	for k.n > k.most {
		k.forget(k.first())
	}
	return k.save()
}

// first is when the memory that ends first does.
func (k *rememberedKeys) first() (first time.Time) {
	for _, memories := range k.keys {
		for _, m := range memories {
			if first.IsZero() || m.Until.Before(first) {
				first = m.Until
			}
		}
	}
	return first
}

// forget drops what is over by then.
func (k *rememberedKeys) forget(now time.Time) {
	k.n = 0
	for id, memories := range k.keys {
		memories = slices.DeleteFunc(memories, func(m memory) bool { return !m.in(now) })
		k.n += len(memories)
		if k.keys[id] = memories; len(memories) == 0 {
			delete(k.keys, id)
		}
	}
}

// save writes the file. k.mu is held.
func (k *rememberedKeys) save() error {
	if k.path == "" {
		return nil
	}
	all := rememberedJSON{Version: 1, Keys: []memory{}}
	for _, memories := range k.keys {
		all.Keys = append(all.Keys, memories...)
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return replaceFile(k.path, append(data, '\n'))
}

// find returns the key of a fingerprint, nil if it is not remembered.
func (k *rememberedKeys) find(fingerprint string) ssh.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.keys {
		if key, err := ssh.ParsePublicKey([]byte(id)); err == nil && ssh.FingerprintSHA256(key) == fingerprint {
			return key
		}
	}
	return nil
}

// rememberedAs are those whose key it is, by their word, and who could still sign
// in. Where keys are not to be remembered any more, those that are count no more.
func (s *Server) rememberedAs(settings *Settings, key ssh.PublicKey) []*auth.Person {
	if settings.SignIn == nil || settings.SignIn.RememberFor <= 0 {
		return nil
	}
	return slices.DeleteFunc(s.theirKeys.people(key), func(p *auth.Person) bool { return settings.SignIn.provider(p.Provider) == nil })
}

// remembers tells whether a key that is offered is somebody's.
func (a *signIn) remembers(key ssh.PublicKey) bool {
	return len(a.s.rememberedAs(a.settings, key)) > 0 && auth.CheckKey(key) == nil && a.s.blocks.ofKey(key) == nil
}

// asRemembered judges whoever proved a key as the person who said that it is
// theirs. With several who may enter it does not say which one that is.
func (a *signIn) asRemembered(in *signedIn, task auth.Task, refusal error) (*ssh.Permissions, error) {
	people := a.s.rememberedAs(a.settings, in.identity.Key)
	var found *ssh.Permissions
	before := in.identity
	for _, who := range people {
		id := before
		id.Person = who
		perms, err := a.authorize(id, task)
		switch {
		case err != nil:
			refusal = err
		case found != nil:
			in.identity = before
			return nil, fmt.Errorf("%w: the key is remembered as that of several people", auth.ErrDenied)
		default:
			found, in.identity = perms, id
		}
	}
	if found == nil {
		return nil, refusal
	}
	return found, nil
}

// remember keeps the word of a person who was let in.
func (a *signIn) remember(t *attempt, said personAnswer) {
	lasting := t.signIn.RememberFor
	if lasting <= 0 {
		return
	}
	keys := slices.DeleteFunc(slices.Clone(t.keys), func(key ssh.PublicKey) bool { return !slices.Contains(said.remember, ssh.FingerprintSHA256(key)) })
	if len(keys) == 0 {
		return
	}
	who := *said.who
	who.Claims = nil
	if t.signIn.Relevant != nil {
		who = *t.signIn.Relevant(said.who)
	}
	if err := a.s.theirKeys.add(keys, &who, time.Now().Add(lasting)); err != nil {
		a.s.log.Error("cannot remember a key", "person", who.Name(), "error", err)
		return
	}
	a.s.log.Info("keys are remembered as a person's", "person", who.Name(), "keys", len(keys), "for", lasting)
}
