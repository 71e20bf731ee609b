package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stagedoor/stagedoor/auth/person"
	"github.com/stagedoor/stagedoor/gateway"
)

// signIn makes those whom people sign in with by a browser, nil if there is none.
// None is asked for anything yet.
func (c *Config) signIn(r *report, p *partners, roots *x509.CertPool) *gateway.SignIn {
	if len(c.Guests.SignIn.Providers) == 0 {
		if len(c.Guests.SignIn.Allow) > 0 {
			r.add("guests.sign_in.allow", "there is nobody to sign in with: name them in guests.sign_in.providers")
		}
		return nil
	}
	var configs []person.Config
	of := c.CAFile
	for i, one := range c.Guests.SignIn.Providers {
		config, err := one.config(roots)
		if err == nil && slices.ContainsFunc(configs, func(other person.Config) bool { return other.Name == config.Name }) {
			err = fmt.Errorf("there are two of the name %.64q", config.Name)
		}
		if err != nil {
			r.addItem("guests.sign_in.providers", i, "%v", err)
		}
		configs = append(configs, config)
		of += fmt.Sprintf("\n%q %q", one, config.ClientSecret)
	}
	people, _ := p.people.get(of, func() ([]*person.Provider, func(), error) {
		var people []*person.Provider
		for i, config := range configs {
			provider, err := person.New(config)
			if err != nil {
				r.addItem("guests.sign_in.providers", i, "%v", err)
				continue
			}
			people = append(people, provider)
		}
		if len(people) < len(configs) { // which was reported
			return nil, nil, errors.New("not all can be used")
		}
		return people, func() {}, nil
	})
	return &gateway.SignIn{Providers: people, RememberFor: c.Guests.SignIn.RememberFor, Relevant: (&person.Authorizer{Rules: c.signInRules(newReport(""))}).Relevant}
}

// config reads the secret of a provider.
func (p Provider) config(roots *x509.CertPool) (person.Config, error) {
	config := person.Config{Name: strings.ToLower(p.Name), Kind: p.Kind, URL: p.URL, ClientID: p.ClientID, Scopes: p.Scopes, LoginClaim: p.LoginClaim, RootCAs: roots}
	switch elsewhere := p.URL != "" && strings.TrimSuffix(p.URL, "/") != "https://github.com"; {
	case config.Name != "":
	case p.Kind == person.GitHub && elsewhere:
		return config, fmt.Errorf("name is missing: github is what grants call accounts of github.com, and this is another server, where somebody else may have the same login; write its host name")
	default:
		config.Name = p.Kind // enough where there is one of a kind
	}
	if p.ClientSecretFile == "" {
		return config, fmt.Errorf("client_secret_file is missing: a file with the secret that the provider gives beside the client_id")
	}
	secret, err := readSecret(p.ClientSecretFile)
	config.ClientSecret = strings.TrimSpace(string(secret))
	return config, err
}

// signInRules are those by which the operator lets people in.
func (c *Config) signInRules(r *report) []person.Rule {
	var rules []person.Rule
	for i, one := range c.Guests.SignIn.Allow {
		rule := person.Rule{Provider: strings.ToLower(one.Provider), Claims: one.Claims, Tasks: one.Tasks}
		known := slices.ContainsFunc(c.Guests.SignIn.Providers, func(p Provider) bool {
			return rule.Provider == strings.ToLower(p.Name) || p.Name == "" && rule.Provider == p.Kind
		})
		switch {
		case !known:
			r.addItem("guests.sign_in.allow", i, "provider %.64q is none of guests.sign_in.providers", one.Provider)
		case len(one.Claims) == 0:
			r.addItem("guests.sign_in.allow", i, "claims is missing, and everybody whom the provider knows would be let in; say so with sub: [\"*\"] (id with GitHub) where that is meant")
		default:
			rules = append(rules, rule)
		}
	}
	return rules
}
