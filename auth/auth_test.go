package auth

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

type answer struct {
	p   *ssh.Permissions
	err error
}

func (a answer) Authorize(context.Context, Identity, Task) (*ssh.Permissions, error) {
	return a.p, a.err
}

func TestAnyOf(t *testing.T) {
	alice, bob := noPermissions(), noPermissions()
	down := errors.New("webhook is down")
	yes, other, no, broken, silent := answer{alice, nil}, answer{bob, nil}, answer{nil, denied("no")}, answer{nil, down}, answer{}
	for _, c := range []struct {
		what string
		any  AnyOf
		want *ssh.Permissions
	}{
		{"nobody", nil, nil},
		{"empty", AnyOf{}, nil},
		{"nil member", AnyOf{nil}, nil},
		{"yes", AnyOf{yes}, alice},
		{"the first that admits", AnyOf{no, nil, yes, other}, alice},
		{"another", AnyOf{other, yes}, bob},
		{"no", AnyOf{no, no}, nil},
		{"neither permissions nor error", AnyOf{silent}, nil},
		{"permissions with an error", AnyOf{answer{alice, down}}, nil},
		{"one is broken, one admits", AnyOf{broken, yes}, alice},
		{"one is broken, none admits", AnyOf{broken, no}, nil},
		{"nested", AnyOf{AnyOf{no}, AnyOf{yes}}, alice},
	} {
		p, err := c.any.Authorize(t.Context(), Identity{}, Task{})
		if p != c.want || (err == nil) != (c.want != nil) || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v, %v", c.what, p, err)
		}
	}
	_, err := AnyOf{no, broken}.Authorize(t.Context(), Identity{}, Task{})
	if !errors.Is(err, down) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the log would not tell why: %q", err)
	}
}
