package registry

import "context"

// A watcher holds one state at most: the latest that was not read yet.
type watcher struct {
	states chan State // capacity 1; written and closed under Memory.mu only
}

// Watch implements Registry.
func (m *Memory) Watch(ctx context.Context, task string) (<-chan State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &watcher{states: make(chan State, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entry(task)
	e.watchers[w] = struct{}{}
	w.put(e.state())
	context.AfterFunc(ctx, func() { m.unwatch(task, w) })
	return w.states, nil
}

func (m *Memory) unwatch(task string, w *watcher) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.tasks[task] // is there: w itself keeps it
	delete(e.watchers, w)
	close(w.states)
	m.tidy(task, e)
}

// publish tells all watchers of e what it has become. Memory.mu is held.
func (e *entry) publish() {
	for w := range e.watchers {
		w.put(e.state())
	}
}

func (e *entry) state() State {
	if e.claim == nil {
		return State{}
	}
	return State{Registered: true, Owner: e.claim.owner.clone()}
}

// put replaces a state that was not read yet. It never blocks: all writers
// hold Memory.mu, so the place that was made empty stays empty.
func (w *watcher) put(s State) {
	select {
	case <-w.states:
	default:
	}
	w.states <- s
}
