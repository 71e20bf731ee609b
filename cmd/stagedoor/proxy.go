package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/tunnel"
)

const proxyHelp = `Proxy connects standard input and output with the SSH server of a gateway, over a
WebSocket on its HTTPS port, for networks that let only HTTPS out. It honours
HTTPS_PROXY and NO_PROXY. It is meant for ssh, in ~/.ssh/config:

    Host terminal.example.com
        ProxyCommand stagedoor proxy %h

PORT is that of HTTPS (default 443), so leave out %p, which is that of SSH.`

// proxyLinger is how long the gateway may go on sending after standard input
// has ended. A WebSocket has no half-close, so that it cannot know.
const proxyLinger = 10 * time.Second

type proxy struct {
	gateway tunnel.Gateway
	roots   *x509.CertPool // nil: the system's
	timeout time.Duration
}

func newProxyCommand() *cobra.Command {
	var caFile string
	var p proxy
	cmd := &cobra.Command{
		Use:   "proxy HOST [PORT]",
		Short: "Carry SSH over HTTPS, as ssh's ProxyCommand",
		Long:  proxyHelp,
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if p.gateway, err = proxyTarget(args); err != nil {
				return err
			}
			if p.roots, err = cli.LoadRoots(caFile); err != nil {
				return fmt.Errorf("--ca-file: %w", err)
			}
			return p.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&caFile, "ca-file", os.Getenv("STAGEDOOR_CA_FILE"), "`file` with the certificates to trust, in the place of the system's (PEM; STAGEDOOR_CA_FILE)")
	cmd.Flags().DurationVar(&p.timeout, "timeout", 30*time.Second, "how long connecting may take")
	return cmd
}

func proxyTarget(args []string) (tunnel.Gateway, error) {
	g, err := tunnel.ParseGateway(args[0])
	if err != nil {
		return g, cli.UsageError("%w", err)
	}
	if len(args) == 2 {
		if _, g.Port, err = tunnel.ParseAddress(net.JoinHostPort(g.Host, args[1])); err != nil {
			return g, cli.UsageError("PORT: %w", err)
		}
	}
	return g, nil
}

func (p *proxy) run(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	ws, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	c := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	received := make(chan error, 1)
	go func() { received <- proxyReceive(stdout, c) }()
	// Nothing can interrupt a read of standard input: this goroutine ends with
	// the input or with the process.
	sent := make(chan error, 1)
	go func() { sent <- proxySend(c, stdin) }()
	select {
	case err := <-received:
		return err
	case err := <-sent:
		if err != nil {
			return <-received // it knows better why the connection ended
		}
	}
	linger := time.AfterFunc(proxyLinger, func() { ws.CloseNow() })
	defer linger.Stop()
	err = <-received
	if !linger.Stop() {
		return nil
	}
	return err
}

// proxyReceive returns when the gateway has closed the connection, with or
// without a word: SSH says goodbye by itself.
func proxyReceive(stdout io.Writer, c net.Conn) error {
	_, err := io.Copy(stdout, c)
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) { // the last two: by us
		return nil
	}
	return fmt.Errorf("connection to the gateway: %w", err)
}

func proxySend(c net.Conn, stdin io.Reader) error {
	_, err := io.Copy(c, stdin)
	return err
}

func (p *proxy) dial(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	client := &http.Client{
		Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			TLSClientConfig: &tls.Config{RootCAs: p.roots, NextProtos: []string{"http/1.1"}},
		},
		// A redirect could lead to where nothing is encrypted.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ws, resp, err := websocket.Dial(ctx, "wss://"+p.gateway.Address()+gateway.GuestWebSocketPath, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		return nil, p.explain(resp, err)
	}
	return ws, nil
}

// explain says what to do about the usual reasons for which a gateway cannot be
// reached.
func (p *proxy) explain(resp *http.Response, err error) error {
	var unknown x509.UnknownAuthorityError
	switch {
	case resp != nil && resp.StatusCode != 0:
		return fmt.Errorf("%s answered %s: is it a Stagedoor gateway?", p.gateway.Address(), resp.Status)
	case errors.As(err, &unknown):
		return fmt.Errorf("connect to %s: %w: name the authority's certificate with --ca-file", p.gateway.Address(), unknown)
	case p.gateway.Port == "22":
		return fmt.Errorf("connect to %s: %w: PORT is that of HTTPS; leave out %%p in ProxyCommand", p.gateway.Address(), err)
	}
	return fmt.Errorf("connect to %s: %w", p.gateway.Address(), err)
}
