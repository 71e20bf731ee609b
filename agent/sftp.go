package agent

import (
	"io"
	"time"

	"github.com/pkg/sftp"
)

const (
	// sftpPatience is how long an sftp server may take to finish what it does to files after its guest has gone.
	sftpPatience = 5 * time.Second
	// sftpPacket is the longest packet that the library reads.
	sftpPacket = 256 << 10
	// sftpData is how much a guest may read or write at once, leaving room for what stands around it.
	sftpData = sftpPacket - 1<<10
)

// serveSFTP serves the sftp protocol, version 3, on a channel until the guest has closed its side. Relative names start in dir.
func serveSFTP(ch io.ReadWriter, dir string) error {
	server, err := sftp.NewServer(newSFTPExtender(ch, dir), sftp.WithServerWorkingDirectory(dir), sftp.WithMaxTxPacket(sftpData))
	if err != nil {
		return err
	}
	return server.Serve()
}
