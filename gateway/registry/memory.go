package registry

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
)

// Memory is the Registry of a single gateway: it forgets everything when the
// process ends, as tunnels do. Use NewMemory.
type Memory struct {
	mu    sync.Mutex // guards tasks and what is in them
	tasks map[string]*entry
}

// An entry exists while its task has an owner or a watcher.
type entry struct {
	claim    *memoryClaim // nil: no owner
	watchers map[*watcher]struct{}
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{tasks: make(map[string]*entry)}
}

// Claim implements Registry.
func (m *Memory) Claim(ctx context.Context, task string, o Owner) (Claim, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &memoryClaim{m: m, task: task, owner: o.clone(), lost: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entry(task)
	if e.claim != nil {
		if err := o.mayReplace(e.claim.owner); err != nil {
			return nil, fmt.Errorf("claim task %q: %w", task, err)
		}
		close(e.claim.lost)
	}
	e.claim = c
	e.publish()
	return c, nil
}

// mayReplace says whether o may take a task from old.
func (o Owner) mayReplace(old Owner) error {
	switch {
	case o.IssuedAt.After(old.IssuedAt):
		return nil
	case o.IssuedAt.Before(old.IssuedAt):
		return ErrSuperseded
	case !bytes.Equal(o.Key, old.Key):
		return ErrHeld
	}
	return nil
}

func (o Owner) clone() Owner {
	o.Key, o.Data = slices.Clone(o.Key), slices.Clone(o.Data)
	return o
}

// Lookup implements Registry.
func (m *Memory) Lookup(ctx context.Context, task string) (Owner, error) {
	if err := ctx.Err(); err != nil {
		return Owner{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.tasks[task]
	if e == nil || e.claim == nil {
		return Owner{}, fmt.Errorf("look up task %q: %w", task, ErrNotFound)
	}
	return e.claim.owner.clone(), nil
}

// entry returns the entry of task, made if there is none. m.mu is held.
func (m *Memory) entry(task string) *entry {
	e := m.tasks[task]
	if e == nil {
		e = &entry{watchers: make(map[*watcher]struct{})}
		m.tasks[task] = e
	}
	return e
}

// tidy forgets an entry that nobody needs. m.mu is held.
func (m *Memory) tidy(task string, e *entry) {
	if e.claim == nil && len(e.watchers) == 0 {
		delete(m.tasks, task)
	}
}

type memoryClaim struct {
	m     *Memory
	task  string
	owner Owner
	lost  chan struct{} // closed under m.mu, by whoever takes the claim away
}

func (c *memoryClaim) Lost() <-chan struct{} { return c.lost }

func (c *memoryClaim) Release() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	e := c.m.tasks[c.task]
	if e == nil || e.claim != c {
		return nil
	}
	e.claim = nil
	close(c.lost)
	e.publish()
	c.m.tidy(c.task, e)
	return nil
}
