package settings

// Default is what `ffpod init` begins with. There is no other default: a component
// reads the file, and a setting that it misses stops the build.
func Default() Settings {
	return Settings{
		Identity: &Identity{User: new(int64(1000)), Group: new(int64(1000)), SupplementalGroups: []int64{1000}},
		Jellyfin: &Jellyfin{
			Environment:          map[string]string{"TZ": "Etc/UTC"},
			PublishedServerURL:   new(""),
			BaseURL:              new(""),
			KnownProxies:         new(""),
			HardwareAcceleration: new("none"),
			VaapiDevice:          new("/dev/dri/renderD128"),
		},
		Storage: &Storage{Config: &Claim{Size: new(Quantity("20Gi"))}, Shared: &Claim{Size: new(Quantity("50Gi"))}},
		Media:   &Media{ReadOnly: new(true)},
	}
}

// The functions below make the groups that a component needs, with values that
// work where there is a choice, and none where only the user knows.

// DefaultMedia is a new library.
func DefaultMedia() *Sized { return &Sized{Size: new(Quantity("100Gi"))} }

// DefaultRecordings is the claim for recordings.
func DefaultRecordings() *Sized { return &Sized{Size: new(Quantity("200Gi"))} }

// DefaultMediaNFS is a library on an export.
func DefaultMediaNFS(volume, server, path string) *NFS {
	return &NFS{Volume: &volume, Server: &server, Path: &path, MountOptions: []string{"nfsvers=4.1", "hard", "noatime"}}
}

// DefaultSharedNFS is the shared directories on an export.
func DefaultSharedNFS(volume, server, path string) *NFS {
	return &NFS{Volume: &volume, Server: &server, Path: &path, MountOptions: []string{"nfsvers=4.1", "hard", "noatime", "actimeo=1"}}
}

// DefaultResources is a worker's, with a device if it has one.
func DefaultResources(device string) *Resources {
	r := &Resources{
		Requests: map[string]Quantity{"cpu": "250m", "memory": "256Mi"},
		Limits:   map[string]Quantity{"cpu": "4", "memory": "2Gi"},
	}
	if device != "" {
		r.Limits[device] = "1"
	}
	return r
}

// DefaultClass is a class that takes one of a device per worker.
func DefaultClass(device string) *Class {
	return &Class{Slots: new(int64(2)), Resources: DefaultResources(device)}
}

// DefaultDRA is the class for a DeviceClass.
func DefaultDRA(deviceClass string) *DRA {
	return &DRA{DeviceClassName: &deviceClass, Slots: new(int64(2)), Resources: DefaultResources("")}
}

// DefaultNetwork lets Jellyfin fetch metadata.
func DefaultNetwork() *Network {
	return &Network{JellyfinEgress: []Port{
		{Port: new(int64(80)), Protocol: new("TCP")},
		{Port: new(int64(443)), Protocol: new("TCP")},
	}}
}

// DefaultBackup is a backup each night.
func DefaultBackup() *Backup {
	return &Backup{Schedule: new("30 3 * * *"), Keep: new(int64(7)), Size: new(Quantity("20Gi"))}
}
