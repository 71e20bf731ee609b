package auth

// A Person is who signed in with a provider: by a browser, and not by a key.
// Package person finds out.
type Person struct {
	Provider string // name of the provider, in lower case
	// ID is what the provider calls the person and never gives to another: the
	// number of an account on GitHub, the claim sub of OpenID Connect.
	ID     string
	Login  string              // the name that it goes by now, in lower case; empty: the provider tells none
	Claims map[string][]string // what else the provider says
}

// Name is provider:login#ID, as in github:alice#583231. Without a login it is
// provider:#ID.
func (p *Person) Name() string { return p.Provider + ":" + p.Login + "#" + p.ID }
