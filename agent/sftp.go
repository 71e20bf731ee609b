package agent

import (
	"io"
	"time"

	"github.com/pkg/sftp"
)

// sftpPatience is how long an sftp server may take to finish what it does to files after its guest has gone.
const sftpPatience = 5 * time.Second

// serveSFTP serves the sftp protocol on a channel until the guest has closed its side. Relative names start in dir.
func serveSFTP(ch io.ReadWriter, dir string) error {
	server, err := sftp.NewServer(sftpChannel{ch}, sftp.WithServerWorkingDirectory(dir), sftp.WithMaxTxPacket(255<<10))
	if err != nil {
		return err
	}
	return server.Serve()
}

// sftpChannel keeps the library from closing the channel: the exit-status goes first.
type sftpChannel struct{ io.ReadWriter }

func (sftpChannel) Close() error { return nil }
