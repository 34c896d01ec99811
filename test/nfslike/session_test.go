package nfslike_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/supervisor"
	"github.com/ffpod/ffpod/podexec/wire"
)

// The worker is this program again, in a mount namespace of its own where the
// path of the mount is the server's directory: what both machines call /cache.
const (
	workerSocket  = "NFSLIKE_SOCKET"
	workerBacking = "NFSLIKE_BACKING"
	workerPath    = "NFSLIKE_PATH"
	workerFFmpeg  = "NFSLIKE_FFMPEG"
)

func worker() error {
	if err := unix.Mount(os.Getenv(workerBacking), os.Getenv(workerPath), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", os.Getenv(workerPath), err)
	}
	s, err := supervisor.New(supervisor.Config{FFmpeg: os.Getenv(workerFFmpeg), FFprobe: os.Getenv(workerFFmpeg), Log: zap.NewNop()})
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", os.Getenv(workerSocket))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	_, err = s.Serve(ctx, l)
	return err
}

// startWorker starts it; its ffmpeg writes into backing.
func startWorker(backing, path, ffmpeg string) wire.RunnerClient {
	GinkgoHelper()
	socket := filepath.Join(GinkgoT().TempDir(), "worker")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workerSocket+"="+socket, workerBacking+"="+backing, workerPath+"="+path, workerFFmpeg+"="+ffmpeg)
	cmd.Stdout, cmd.Stderr = GinkgoWriter, GinkgoWriter
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	Expect(cmd.Start()).To(Succeed())
	DeferCleanup(func() {
		Expect(cmd.Process.Signal(syscall.SIGTERM)).To(Succeed())
		Expect(cmd.Wait()).To(Succeed())
	})
	Eventually(func() error { _, err := os.Stat(socket); return err }, 10*time.Second, poll/10).Should(Succeed())
	conn, err := grpc.NewClient("unix:"+socket, append(session.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(conn.Close)
	return wire.NewRunnerClient(conn)
}

// passer is the least of a scheduler: one worker, to which it passes every frame.
type passer struct {
	wire.UnimplementedRunnerServer
	worker wire.RunnerClient
}

func (p *passer) Run(shim wire.Runner_RunServer) error {
	first, err := shim.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return errors.New("nothing is resumed here")
	}
	ticket := &wire.Ticket{Session: start.Session, Pod: "worker-1", Placement: "warm"}
	if err := shim.Send(&wire.Frame{Kind: &wire.Frame_Ticket{Ticket: ticket}}); err != nil {
		return err
	}
	for f := first; f.GetTicketAck() == nil; {
		if f, err = shim.Recv(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(shim.Context())
	defer cancel()
	worker, err := p.worker.Run(ctx)
	if err != nil {
		return err
	}
	if err := worker.Send(first); err != nil {
		return err
	}
	go func() {
		defer cancel()
		for {
			f, err := shim.Recv()
			if err != nil || worker.Send(f) != nil {
				return
			}
		}
	}()
	for {
		f, err := worker.Recv()
		if err != nil {
			return nil // the shim has its Exit, or is told by the missing one
		}
		if err := shim.Send(f); err != nil {
			return err
		}
	}
}

// startScheduler returns the settings of a shim that uses it.
func startScheduler(worker wire.RunnerClient) []string {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nfslike"}, DNSNames: []string{"ffpod-scheduler"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	Expect(err).NotTo(HaveOccurred())
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	Expect(os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o600)).To(Succeed())
	Expect(os.WriteFile(filepath.Join(dir, "token"), []byte("a.b.c"), 0o600)).To(Succeed())

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	server := grpc.NewServer(append(session.ServerOptions(), grpc.Creds(credentials.NewServerTLSFromCert(&cert)))...)
	wire.RegisterRunnerServer(server, &passer{worker: worker})
	var serving errgroup.Group
	serving.Go(func() error { return server.Serve(listener) })
	DeferCleanup(func() {
		server.Stop()
		Expect(serving.Wait()).To(Succeed())
	})
	return []string{
		"FFPOD_MODE=remote", "FFPOD_ADDRESS=" + listener.Addr().String(),
		"FFPOD_CA_FILE=" + filepath.Join(dir, "ca.crt"), "FFPOD_TOKEN_FILE=" + filepath.Join(dir, "token"),
	}
}

// shim is the real program, about to run on p; its worker's files are backing's.
func (p place) shim(backing string, args ...string) (*exec.Cmd, *gbytes.Buffer) {
	GinkgoHelper()
	ffmpeg, err := exec.LookPath("ffmpeg")
	Expect(err).NotTo(HaveOccurred(), "these specs need the real program, install the package ffmpeg")
	settings := startScheduler(startWorker(backing, p.Path, ffmpeg))
	cmd := exec.Command(built, args...)
	cmd.Dir = p.Path
	cmd.Env = append(settings, "PATH="+os.Getenv("PATH"), "FFPOD_SHARED="+p.Path, "FFPOD_FFMPEG="+ffmpeg)
	stderr := gbytes.NewBuffer()
	cmd.Stderr = stderr
	return cmd, stderr
}

// built is the shim.
var built string

var _ = BeforeSuite(func() {
	built = filepath.Join(GinkgoT().TempDir(), "ffmpeg")
	build := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", built, "../../cmd/ffmpeg")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
})

var _ = Describe("a session", func() {
	const seconds = 6
	encode := func(more ...string) []string {
		return append([]string{
			"-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-t", fmt.Sprint(seconds),
			"-c:v", "libx264", "-preset", "ultrafast", "-g", "25",
		}, more...)
	}

	It("shows each segment to a caller that polls, and the whole when the shim is gone", func() {
		p := mount()
		cmd, stderr := p.shim(p.Backing, encode("-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod",
			"-hls_segment_filename", p.here("8f%d.ts"), "-y", p.here("8f.m3u8"))...)
		Expect(cmd.Start()).To(Succeed())
		defer func() { _ = cmd.Process.Kill() }()
		for n := range seconds - 1 { // as Jellyfin: is n there, and is n+1?
			name, next := fmt.Sprintf("8f%d.ts", n), fmt.Sprintf("8f%d.ts", n+1)
			Expect(p.size(next)).To(BeEquivalentTo(-1), "it was there before it was asked for: no proof")
			var since time.Time
			Eventually(func() int64 {
				if _, err := os.Stat(p.there(next)); err == nil && since.IsZero() {
					since = time.Now()
				}
				return p.size(next)
			}, 20*time.Second, poll/5).Should(BeNumerically(">=", 0), string(stderr.Contents()))
			Expect(time.Since(since)).To(BeNumerically("<", fresh))
			st, err := os.Stat(p.there(name))
			Expect(err).NotTo(HaveOccurred())
			Eventually(p.size, between, time.Millisecond).WithArguments(name).Should(Equal(st.Size()))
		}
		p.size("8f.m3u8")
		Expect(cmd.Wait()).To(Succeed(), string(stderr.Contents()))
		names, err := filepath.Glob(p.there("8f*"))
		Expect(err).NotTo(HaveOccurred())
		Expect(names).To(HaveLen(seconds + 1))
		for _, name := range names {
			st, err := os.Stat(name)
			Expect(err).NotTo(HaveOccurred())
			Expect(p.size(filepath.Base(name))).To(Equal(st.Size()), name)
		}
	})

	It("lets a caller read a growing file to its true end", func() {
		p := mount()
		cmd, stderr := p.shim(p.Backing, encode("-flush_packets", "1", "-f", "mpegts", "-y", p.here("whole.ts"))...)
		Expect(p.size("whole.ts")).To(BeEquivalentTo(-1))
		Expect(cmd.Start()).To(Succeed())
		defer func() { _ = cmd.Process.Kill() }()
		Eventually(p.size, 20*time.Second, poll).WithArguments("whole.ts").Should(BeNumerically(">", 0), string(stderr.Contents()))
		for range 3 {
			size := p.size("whole.ts")
			Eventually(p.size, 2*fresh, poll).WithArguments("whole.ts").Should(BeNumerically(">", size))
		}
		Expect(cmd.Wait()).To(Succeed(), string(stderr.Contents()))
		here, err := os.ReadFile(p.here("whole.ts"))
		Expect(err).NotTo(HaveOccurred())
		there, err := os.ReadFile(p.there("whole.ts"))
		Expect(err).NotTo(HaveOccurred())
		Expect(bytes.Equal(here, there)).To(BeTrue(), "%d bytes here, %d there", len(here), len(there))
	})

	It("fails when the worker wrote another volume under the same path", func() {
		p := mount()
		other := GinkgoT().TempDir()
		cmd, stderr := p.shim(other, "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=d=0.2", "-c:v", "mpeg4", "-y", p.here("a.avi"))
		err := cmd.Run()
		Expect(err).To(HaveOccurred())
		Expect(cmd.ProcessState.ExitCode()).To(Equal(session.InfrastructureExit), string(stderr.Contents()))
		Expect(string(stderr.Contents())).To(ContainSubstring("a.avi is missing here"))
		Expect(filepath.Join(other, "a.avi")).To(BeAnExistingFile())
	})
})
