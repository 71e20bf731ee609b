package main

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNetworks(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "192.0.2.0/24": "192.0.2.0/24", "2001:db8::/32": "2001:db8::/32", "::1": "::1/128", "::ffff:192.0.2.1": "192.0.2.1/32",
		"": "no network", "example.com": "no network", "192.0.2.0/33": "no network", "fe80::1%eth0": "no network",
		"192.0.2.1/24": "the network is 192.0.2.0/24", "::ffff:192.0.2.0/120": "write an IPv4 network",
	} {
		p, err := parseNetwork(text)
		if got := p.String(); err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestMistakesInNetworks(t *testing.T) {
	const valid = "domain: a.example.com\n"
	for text, want := range map[string]string{
		"limits: {penalties: {exempt: [10.0.0.0/8, nobody]}}":      `c.yaml:2: limits.penalties.exempt: "nobody": it is no network`,
		"limits: {penalties: {exempt: [0.0.0.0/0]}}":               "",
		"limits: {penalties: {max: 0s, refused: 0s}}":              "",
		"limits: {penalties: {threshold: 0s}}":                     "c.yaml:2: limits.penalties.threshold: it must be more than 0s",
		"limits: {penalties: {crash: -1s}}":                        "c.yaml:2: limits.penalties.crash: -1s is negative",
		"proxy_protocol: {from: [0.0.0.0/0]}":                      `c.yaml:2: proxy_protocol.from: "0.0.0.0/0": anybody could pretend`,
		"proxy_protocol: {from: ['::/0']}":                         `c.yaml:2: proxy_protocol.from: "::/0": anybody could pretend`,
		"proxy_protocol:\n  from:\n  - 10.0.0.1\n  - 10.0.0.1/8\n": `c.yaml:5: proxy_protocol.from: "10.0.0.1/8": an address with a length`,
	} {
		_, r := loadText(t, valid+text)
		if got := mistakesIn(r); want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// Every penalty of the gateway can be configured, none is lost on the way, and
// zero means none.
func TestPenaltiesAreComplete(t *testing.T) {
	var c Config
	v := reflect.ValueOf(&c.Limits.Penalties).Elem()
	g := reflect.ValueOf(c.penalties())
	if v.NumField() != g.NumField() {
		t.Errorf("%d settings for %d fields", v.NumField(), g.NumField())
	}
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name == "Exempt" {
			continue
		}
		if got := g.FieldByName(name).Int(); got >= 0 && name != "Threshold" {
			t.Errorf("without %s it is %d", name, got)
		}
		v.Field(i).SetInt(int64(time.Second) * int64(i+1))
		if got := reflect.ValueOf(c.penalties()).FieldByName(name).Int(); got != v.Field(i).Int() {
			t.Errorf("%s arrives as %d", name, got)
		}
	}
	if got := c.penalties().Exempt; got == nil || len(got) != 0 {
		t.Errorf("an empty list becomes %v, the default if it is nil", got)
	}
	c.Limits.Penalties.Exempt, c.ProxyProtocol.From = []string{"10.0.0.0/8"}, []string{"192.0.2.1"}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")}
	if got := c.penalties().Exempt; !slices.Equal(got, want) {
		t.Errorf("exempt: %v", got)
	}
}
