package clients

import (
	"strings"
	"sync"
	"testing"
)

// A feature is a column of a table.
type feature struct {
	title string // of the column, and the name of the subtest
	about string // what the check looks at
}

// A group is a table: clients below each other, features beside each other.
type group struct {
	title    string
	features []feature
	programs bool // its rows are programs that run ssh
}

var groups = []group{
	{title: "Signing in", features: []feature{
		{ed25519, "signs in with an ed25519 key"},
		{ecdsa, "… with an ECDSA key on the curve P-256"},
		{rsa, "… with an RSA key, by a SHA-2 signature"},
		{"Host key", "goes no further when the gateway shows another host key than the one it knows"},
	}},
	{title: "Sessions", features: []feature{
		{"Command", "stdout and stderr apart, to the byte, and the exit status"},
		{"Stdin", "1 MiB of input comes back as 1 MiB of output, and the command sees its end"},
		{"Terminal", "a shell in a terminal of the right size, which changes when the window does"},
	}},
	{title: "Files", features: []feature{
		{"sftp", "4 MiB there and back by sftp, the same bytes"},
		{"scp", "… by scp"},
	}},
	{title: "Forwarding", features: []feature{
		{"-L", "from the guest into the host's network, 1 MiB with a half-close and an answer"},
		{"-L unix", "… to a unix socket of the host"},
		{"-D", "… to where a SOCKS client wants to go"},
		{"-R", "from the host into the guest's network, likewise"},
		{"Agent", "ssh-add on the host lists and uses the key in the guest's ssh-agent"},
		{"X11", "xdpyinfo on the host sees the guest's display"},
	}},
	{title: "The connection", features: []feature{
		{"End to end", "through the gateway to the agent's own SSH server, by the client's own means; the agent's host key is checked"},
		{"Rekey", "new keys in the middle of 8 MiB both ways"},
		{"Answers keepalive", "the gateway asks an idle client for signs of life and gets them"},
		{"Sends keepalive", "an idle client asks by itself"},
	}},
	{title: "Programs that run ssh", programs: true, features: []feature{
		{"Download", "4 MiB, the same bytes"},
		{"Upload", "4 MiB, the same bytes"},
		{"Trees", "a whole directory; what is gone is deleted where the program can"},
		{"Resume", "the second half of a file whose first half is there"},
		{"Through -J", "the same end to end"},
		{"Comes back", "goes on by itself after its connection was cut"},
	}},
}

// The kinds of keys that a guest has, and the columns about them.
const (
	ed25519 = "ed25519"
	ecdsa   = "ECDSA"
	rsa     = "RSA"
)

// A client is a row: what it does in each column of its tables.
type client struct {
	name     string
	programs bool // runs ssh, and is in the table of such programs alone
	// version prints what runs here, for -update.
	version func(t *testing.T) string
	// need skips the test where the client is missing.
	need  func(t *testing.T)
	cells map[string]cell
}

// A cell is what a client does in one column: a check, or why there is none. The
// words become a footnote, and with a check they are optional.
type cell struct {
	check check
	why   string
}

// A check is the test of a cell, for a guest of its own.
type check func(t *testing.T, g *guest)

// works is the cell of what the client can do.
func works(c check) cell { return cell{check: c} }

// but adds a footnote to a cell that works.
func (c cell) but(note string) cell {
	c.why = note
	return c
}

// not is the cell of what this client does not have.
func not(why string) cell { return cell{why: why} }

// results are the cells that were seen to work, and the versions of the clients.
type results struct {
	mu       sync.Mutex // guards what follows
	works    map[[2]string]bool
	versions map[string]string
}

func newResults() *results {
	return &results{works: map[[2]string]bool{}, versions: map[string]string{}}
}

func (r *results) add(client, feature string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.works[[2]string{client, feature}] = true
}

// test runs the row's cells. One that is neither checked nor explained, or that
// belongs to no column, is a mistake.
func (c *client) test(t *testing.T, w *world, seen *results) {
	c.need(t)
	if *update {
		seen.versions[c.name] = c.version(t)
	}
	columns := 0
	for _, f := range c.features() {
		cell, ok := c.cells[f.title]
		if !ok || cell.check == nil && cell.why == "" {
			t.Errorf("%s: %s is neither checked nor explained", c.name, f.title)
			continue
		}
		columns++
		if cell.check == nil {
			continue
		}
		t.Run(strings.ReplaceAll(f.title, " ", "-"), func(t *testing.T) {
			t.Parallel()
			cell.check(t, w.newGuest(t))
			if !t.Failed() {
				seen.add(c.name, f.title)
			}
		})
	}
	if columns != len(c.cells) {
		t.Errorf("%s has %d cells for %d columns", c.name, len(c.cells), columns)
	}
}

// features are the columns of a client's tables.
func (c *client) features() []feature {
	var all []feature
	for _, g := range groups {
		if g.programs == c.programs {
			all = append(all, g.features...)
		}
	}
	return all
}
