package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// allocatedEnv tells a container which of the pretended devices are its own.
const allocatedEnv = "FFPOD_FAKE_GPU"

// socketCheck is how often a plugin looks whether the kubelet, which empties
// the directory when it starts, has removed its socket.
const socketCheck = time.Second

// lostCheck is how often a plugin looks which of its devices are lost.
const lostCheck = 500 * time.Millisecond

// A devicePlugin advertises count devices of one resource to the kubelet, healthy
// but for those that the file lost names. The devices exist only as names:
// Allocate sets an environment variable, and where the maker's device would be it
// gives the container a node that is /dev/null.
type devicePlugin struct {
	deviceplugin.UnimplementedDevicePluginServer

	resource string
	count    int
	dir      string
	lost     string // path of a file with a line RESOURCE/ID for each lost device; "": none
}

// runDevicePlugin serves one plugin per resource until SIGTERM.
func runDevicePlugin() int {
	flags := flag.NewFlagSet("device-plugin", flag.ExitOnError)
	dir := flags.String("dir", deviceplugin.DevicePluginPath, "the kubelet's device plugin `directory`")
	resources := flags.String("resources", "nvidia.com/gpu=2", "`NAME=COUNT,...` to advertise")
	lost := flags.String("lost", "", "`file` that names lost devices, a line RESOURCE/ID each; read again when it changes")
	_ = flags.Parse(os.Args[1:]) // ExitOnError.

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var running sync.WaitGroup
	for entry := range strings.SplitSeq(*resources, ",") {
		name, text, _ := strings.Cut(entry, "=")
		count, err := strconv.Atoi(text)
		if err != nil || name == "" {
			fmt.Fprintf(os.Stderr, "device-plugin: resource %q is not NAME=COUNT\n", entry)
			return 2
		}
		plugin := &devicePlugin{resource: name, count: count, dir: *dir, lost: *lost}
		running.Go(func() { plugin.run(ctx) })
	}
	running.Wait()
	return 0
}

// run keeps the plugin registered until ctx ends, over any number of kubelet
// restarts.
func (p *devicePlugin) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.serve(ctx); err != nil {
			klog.ErrorS(err, "device plugin", "resource", p.resource)
		}
		select {
		case <-ctx.Done():
		case <-time.After(socketCheck):
		}
	}
}

// serve listens, registers once (the kubelet refuses a second registration of
// the same socket) and returns when the socket is gone or ctx ends.
func (p *devicePlugin) serve(ctx context.Context) error {
	socket := filepath.Join(p.dir, strings.ReplaceAll(p.resource, "/", "-")+".sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	// A server that has lost its socket must not unlink its successor's.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	server := grpc.NewServer()
	deviceplugin.RegisterDevicePluginServer(server, p)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	defer serving.Wait()
	defer server.Stop()

	if err := p.register(ctx, filepath.Base(socket)); err != nil {
		return err
	}
	klog.InfoS("registered", "resource", p.resource, "count", p.count)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(socketCheck):
		}
		if _, err := os.Stat(socket); err != nil {
			return fmt.Errorf("socket removed, registering anew: %w", err)
		}
	}
}

func (p *devicePlugin) register(ctx context.Context, endpoint string) error {
	conn, err := grpc.NewClient("unix://"+filepath.Join(p.dir, "kubelet.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = deviceplugin.NewRegistrationClient(conn).Register(ctx, &deviceplugin.RegisterRequest{
		Version:      deviceplugin.Version,
		Endpoint:     endpoint,
		ResourceName: p.resource,
	})
	return err
}

// GetDevicePluginOptions asks for none of the optional calls.
func (p *devicePlugin) GetDevicePluginOptions(context.Context, *deviceplugin.Empty) (*deviceplugin.DevicePluginOptions, error) {
	return &deviceplugin.DevicePluginOptions{}, nil
}

// ListAndWatch sends the devices, and again whenever one is lost or found.
func (p *devicePlugin) ListAndWatch(_ *deviceplugin.Empty, stream deviceplugin.DevicePlugin_ListAndWatchServer) error {
	tick := time.NewTicker(lostCheck)
	defer tick.Stop()
	said := ""
	for {
		devices := p.devices()
		if now := fmt.Sprint(devices); now != said {
			said = now
			if err := stream.Send(&deviceplugin.ListAndWatchResponse{Devices: devices}); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

// devices are all of them, with their health now. A file that is not there names
// none.
func (p *devicePlugin) devices() []*deviceplugin.Device {
	lost := map[string]bool{}
	if text, err := os.ReadFile(p.lost); err == nil {
		for line := range strings.Lines(string(text)) {
			lost[strings.TrimSpace(line)] = true
		}
	}
	devices := make([]*deviceplugin.Device, p.count)
	for i := range devices {
		devices[i] = &deviceplugin.Device{ID: fmt.Sprintf("gpu-%d", i), Health: deviceplugin.Healthy}
		if lost[p.resource+"/"+devices[i].ID] {
			devices[i].Health = deviceplugin.Unhealthy
		}
	}
	return devices
}

// Allocate names the devices in the container's environment, and makes nodes that
// can be opened and do nothing.
func (p *devicePlugin) Allocate(_ context.Context, request *deviceplugin.AllocateRequest) (*deviceplugin.AllocateResponse, error) {
	response := &deviceplugin.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		allocated := &deviceplugin.ContainerAllocateResponse{Envs: map[string]string{allocatedEnv: strings.Join(container.DevicesIds, ",")}}
		for i := range container.DevicesIds {
			allocated.Devices = append(allocated.Devices, &deviceplugin.DeviceSpec{HostPath: os.DevNull, ContainerPath: p.node(i), Permissions: "rw"})
		}
		response.ContainerResponses = append(response.ContainerResponses, allocated)
	}
	return response, nil
}

// node is where a container finds the nth of its devices.
func (p *devicePlugin) node(n int) string {
	if strings.HasPrefix(p.resource, "nvidia.com/") {
		return fmt.Sprintf("/dev/nvidia%d", n)
	}
	return fmt.Sprintf("/dev/dri/renderD%d", 128+n)
}
