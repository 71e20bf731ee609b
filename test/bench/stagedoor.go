//go:build unix

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// stagedoor is what the bench is about: the real gateway and the real agent,
// and ssh TASK@GATEWAY.
type stagedoor struct {
	called string
	cipher string // that ssh insists on; empty: what it agrees upon with the gateway
}

const benchTask = "bench"

func (s *stagedoor) name() string { return s.called }

func (s *stagedoor) about() string {
	return "Stagedoor: ssh task@gateway, spliced to the agent" + with(s.cipher)
}

func (s *stagedoor) start(ctx context.Context, l *lab) (*route, error) {
	if err := l.build(ctx); err != nil {
		return nil, err
	}
	g, err := l.startGateway(ctx, s.called)
	if err != nil {
		return nil, err
	}
	agent, err := l.startAgent(ctx, s.called, g)
	if err != nil {
		return nil, err
	}
	return &route{
		hops:    []hop{{benchTask, g.ssh}},
		cipher:  s.cipher,
		gateway: []*process{g.process},
		host:    []*process{agent},
	}, nil
}

// build makes the two programs, unless there are some to use.
func (l *lab) build(ctx context.Context) error {
	if l.bin != "" {
		return nil
	}
	const module = "github.com/stagedoor/stagedoor"
	l.bin = l.path("bin")
	cmd := command(ctx, "go", "build", "-ldflags=-s -w", "-o", l.bin+string(os.PathSeparator),
		module+"/cmd/stagedoor", module+"/cmd/stagedoor-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	_, err := l.output(ctx, cmd)
	return err
}

// A gateway is a stagedoor gateway that runs.
type gateway struct {
	*process
	config      string
	ssh, https  string // addresses
	certificate string // file that agents trust
}

func (l *lab) startGateway(ctx context.Context, name string) (*gateway, error) {
	g := &gateway{certificate: l.path(name + ".crt")}
	var private string
	for _, address := range []*string{&g.ssh, &g.https, &private} {
		var err error
		if *address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	if err := l.writeCertificate(name+".crt", name+".key"); err != nil {
		return nil, err
	}
	var err error
	g.config, err = l.write(name+".yaml", strings.Join([]string{
		"state_dir: " + l.path(name+"-state"),
		"ssh:", "  listen: " + g.ssh, "  address: " + g.ssh,
		"https:", "  listen: " + g.https, "  certificate: " + g.certificate, "  key: " + l.path(name+".key"),
		"private:", "  listen: " + private,
		"",
	}, "\n"))
	if err != nil {
		return nil, err
	}
	g.process, err = l.serve(name+"-gateway", exec.Command(l.bin+"/stagedoor", "gateway", "--config", g.config))
	if err != nil {
		return nil, err
	}
	return g, g.waitFor(ctx, func() bool { return listens(g.ssh)() && listens(g.https)() })
}

// startAgent returns once the task is registered.
func (l *lab) startAgent(ctx context.Context, name string, g *gateway) (*process, error) {
	token, err := l.output(ctx, command(ctx, l.bin+"/stagedoor", "token", "--config", g.config,
		"--task", benchTask, "--ttl", "12h", "--authorized-keys", l.path("guest.pub")))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(l.bin+"/stagedoor-agent", "connect")
	// Variables of the user's own would configure it too.
	others := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "STAGEDOOR_") })
	cmd.Env = append(others,
		"STAGEDOOR_TOKEN="+strings.TrimSpace(token),
		"STAGEDOOR_GATEWAY="+g.https,
		"SSL_CERT_FILE="+g.certificate,
		"HOME="+l.home(),
	)
	p, err := l.serve(name+"-agent", cmd)
	if err != nil {
		return nil, err
	}
	// The agent prints how to enter the task once it can be entered.
	return p, p.waitFor(ctx, func() bool { return strings.Contains(logTail(p.log), benchTask+"@") })
}

// writeCertificate makes a TLS certificate for 127.0.0.1 that signs itself.
func (l *lab) writeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if _, err := l.write(certFile, pemText("CERTIFICATE", cert)); err != nil {
		return err
	}
	_, err = l.write(keyFile, pemText("PRIVATE KEY", keyDER))
	return err
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
