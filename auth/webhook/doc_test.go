package webhook

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// TestExample: what the package comment shows is what is sent, and what it shows
// as the answer permits what it says.
func TestExample(t *testing.T) {
	blocks := docBlocks(t)
	if len(blocks) != 2 {
		t.Fatalf("the package comment has %d examples, want 2", len(blocks))
	}
	head, body, _ := strings.Cut(blocks[0], "\n\n")
	ca := newSigner(t, 'c')
	e := newEndpoint(t, says(blocks[1]))
	w := e.webhook(t, func(c *Config) {
		c.URL = e.URL + "/stagedoor"
		c.Authorities = []ssh.PublicKey{ca.PublicKey()}
	})
	w.newID = func() string { return "msg_EXAMPLE" }
	p, err := w.Authorize(t.Context(), guest(newCertificate(t, ca, nil)), task)
	if err != nil {
		t.Fatal(err)
	}

	got := e.asked()[0]
	for i, want := range strings.Split(head, "\n") {
		name, value, _ := strings.Cut(want, ": ")
		if i > 0 && got.header.Get(name) != value {
			t.Errorf("header %s: %q, the example has %q", name, got.header.Get(name), value)
		}
	}
	if !reflect.DeepEqual(unmarshal(t, string(got.body)), unmarshal(t, body)) {
		t.Errorf("sent\n%s\nthe example has\n%s", got.body, body)
	}
	if strings.Contains(string(got.body), "\n") {
		t.Error("sent in more than one line")
	}

	if got, want := slices.Sorted(maps.Keys(p.Extensions)), []string{"identity@stagedoor", "permit-exec@stagedoor", "permit-port-forwarding", "permit-pty"}; !slices.Equal(got, want) {
		t.Errorf("permits %q, want %q", got, want)
	}
	want := map[string]string{auth.ForceCommand: "./debug", auth.PermitOpen: "localhost:5432", auth.PermitListen: ""}
	if auth.IdentityName(p) != "alice" || !maps.Equal(p.CriticalOptions, want) {
		t.Errorf("identity %q, options %q", auth.IdentityName(p), p.CriticalOptions)
	}
}

// docBlocks are the indented parts of the package comment.
func docBlocks(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "webhook.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	block := ""
	for text := range strings.Lines(file.Doc.Text() + "end\n") {
		switch code, indented := strings.CutPrefix(text, "\t"); {
		case indented:
			block += code
		case text == "\n" && block != "":
			block += text
		case block != "":
			blocks = append(blocks, strings.TrimSpace(block))
			block = ""
		}
	}
	return blocks
}

func unmarshal(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return v
}

// ExampleVerify is the other side, in Go.
func ExampleVerify() {
	secret, err := ParseSecret("whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=")
	if err != nil {
		fmt.Println(err)
		return
	}
	header := http.Header{}
	header.Set("webhook-id", "msg_1")
	header.Set("webhook-timestamp", fmt.Sprint(noon.Unix()))
	header.Set("webhook-signature", "v1,bm90IHRoaXM=")
	fmt.Println(Verify(secret, header, []byte("{}"), noon))
	// Output: request is signed with another secret, or was changed
}
