package settings

// A field is a setting. Its comment is its description, in the files that `ffpod
// init` writes and in docs/configuration.md. Pointers tell a setting that is
// missing from one that is zero: a component that reads a missing one stops the
// build.

// Settings is a settings.yaml.
type Settings struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`

	// The user and groups of Jellyfin, every worker and the backups.
	Identity *Identity `json:"identity,omitempty"`
	// Jellyfin itself.
	Jellyfin *Jellyfin `json:"jellyfin,omitempty"`
	// The claims: how large, and of which StorageClass.
	Storage *Storage `json:"storage,omitempty"`
	// The library.
	Media *Media `json:"media,omitempty"`
	// The directories that Jellyfin and its workers exchange.
	Shared *Shared `json:"shared,omitempty"`
	// PostgreSQL in place of SQLite.
	Database *Database `json:"database,omitempty"`
	// How clients reach Jellyfin.
	Exposure *Exposure `json:"exposure,omitempty"`
	// The classes of workers that have a GPU.
	GPU *GPU `json:"gpu,omitempty"`
	// Warm workers scaled by KEDA.
	Keda *Keda `json:"keda,omitempty"`
	// Jobs queued by Kueue.
	Kueue *Kueue `json:"kueue,omitempty"`
	// The priorities of workers.
	Priority *Priority `json:"priority,omitempty"`
	// The nodes that pods are kept to.
	Nodes *Nodes `json:"nodes,omitempty"`
	// What Jellyfin may reach.
	Network *Network `json:"network,omitempty"`
	// Backups of Jellyfin's database and settings.
	Backup *Backup `json:"backup,omitempty"`
	// Certificates from cert-manager.
	Certificates *Certificates `json:"certificates,omitempty"`
}

// Metadata is what makes kustomize keep the file out of what it renders.
type Metadata struct {
	Name        string            `json:"name"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Identity is one for all who share files.
type Identity struct {
	// The user ID. Never 0.
	User *int64 `json:"user,omitempty"`
	// The group ID, which fresh volumes are given. Never 0.
	Group *int64 `json:"group,omitempty"`
	// Further groups, such as the nodes' render group (`stat -c %g /dev/dri/renderD128` on a node). Never empty: repeat the group above if there is none.
	SupplementalGroups []int64 `json:"supplementalGroups,omitempty"`
}

// Jellyfin is what Jellyfin is told.
type Jellyfin struct {
	// Environment variables, read at Jellyfin's next restart. TZ at least.
	Environment map[string]string `json:"environment,omitempty"`
	// The URL that clients are told, e.g. https://jellyfin.example.org; a change restarts Jellyfin. Empty: what the dashboard says.
	PublishedServerURL *string `json:"publishedServerUrl,omitempty"`
	// The path below which it is published, e.g. /jellyfin. Written where network.xml is missing; afterwards use the dashboard or `ffpod jellyfin apply`.
	BaseURL *string `json:"baseUrl,omitempty"`
	// Comma list of the addresses or networks of reverse proxies. Written like baseUrl.
	KnownProxies *string `json:"knownProxies,omitempty"`
	// The hardware that Jellyfin asks ffmpeg for: none, nvenc, qsv, vaapi, amf, rkmpp or v4l2m2m. Written like baseUrl, into encoding.xml.
	HardwareAcceleration *string `json:"hardwareAcceleration,omitempty"`
	// The device for vaapi and qsv, as workers see it. Written like baseUrl, into encoding.xml.
	VaapiDevice *string `json:"vaapiDevice,omitempty"`
}

// Storage is the claims.
type Storage struct {
	// Jellyfin's database, metadata and cache: block or local storage, never NFS. The class is also that of the claims jellyfin-postgres and jellyfin-backup, where they are listed before storage-class.
	Config *Claim `json:"config,omitempty"`
	// Transcodes, subtitles, fonts and temporary files: ReadWriteMany, or one node.
	Shared *Claim `json:"shared,omitempty"`
	// A new, empty library.
	Media *Sized `json:"media,omitempty"`
	// Recordings of live TV.
	Recordings *Sized `json:"recordings,omitempty"`
}

// Claim is a claim whose class may be chosen.
type Claim struct {
	// The claim's size.
	Size *Quantity `json:"size,omitempty"`
	// Its StorageClass (`kubectl get storageclass`). A claim that exists cannot change it.
	ClassName *string `json:"className,omitempty"`
}

// Sized is a claim of the default class.
type Sized struct {
	// The claim's size.
	Size *Quantity `json:"size,omitempty"`
}

// Media is the library.
type Media struct {
	// true: Jellyfin cannot write to the library. Workers never can.
	ReadOnly *bool `json:"readOnly,omitempty"`
	// A claim that exists in the namespace, ReadWriteMany or ReadOnlyMany.
	Claim *string `json:"claim,omitempty"`
	// An NFS export.
	NFS *NFS `json:"nfs,omitempty"`
}

// Shared is where the exchanged directories are if not on a StorageClass.
type Shared struct {
	// An NFS export, one directory per Jellyfin.
	NFS *NFS `json:"nfs,omitempty"`
}

// NFS is an export and the volume for it.
type NFS struct {
	// The name of the PersistentVolume, of which the cluster has one.
	Volume *string `json:"volume,omitempty"`
	// The server's name or address, as the nodes reach it.
	Server *string `json:"server,omitempty"`
	// The exported path.
	Path *string `json:"path,omitempty"`
	// Mount options. Never empty. A shared directory needs actimeo=1, else NFS hides what another node has just written.
	MountOptions []string `json:"mountOptions,omitempty"`
}

// Database is PostgreSQL.
type Database struct {
	// The size of the server's claim, or of each instance's.
	Size *Quantity `json:"size,omitempty"`
	// Instances of the CloudNativePG cluster, 1 or 3.
	Instances *int64 `json:"instances,omitempty"`
	// A server that exists.
	External *ExternalDatabase `json:"external,omitempty"`
}

// ExternalDatabase is a connection that exists.
type ExternalDatabase struct {
	// A Secret of the namespace with the keys host, port, database, username and password.
	SecretName *string `json:"secretName,omitempty"`
}

// Exposure is the ways in.
type Exposure struct {
	// The name by which clients reach it.
	Host *string `json:"host,omitempty"`
	// The Ingress.
	Ingress *Ingress `json:"ingress,omitempty"`
	// Its certificate.
	TLS *TLS `json:"tls,omitempty"`
	// The Gateway that the route attaches to.
	Gateway *Gateway `json:"gateway,omitempty"`
	// A Service of type LoadBalancer.
	LoadBalancer *LoadBalancer `json:"loadBalancer,omitempty"`
	// A Service of type NodePort.
	NodePort *NodePort `json:"nodePort,omitempty"`
}

// Ingress is the Ingress.
type Ingress struct {
	// The controller's class (`kubectl get ingressclass`).
	ClassName *string `json:"className,omitempty"`
	// Annotations of the Ingress, one at least.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// TLS is a certificate.
type TLS struct {
	// The Secret of type kubernetes.io/tls.
	SecretName *string `json:"secretName,omitempty"`
}

// Gateway is a Gateway of the Gateway API.
type Gateway struct {
	// Its name.
	Name *string `json:"name,omitempty"`
	// Its namespace.
	Namespace *string `json:"namespace,omitempty"`
}

// LoadBalancer is a Service with an address of its own.
type LoadBalancer struct {
	// Annotations of the Service, one at least.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// NodePort is a Service on every node.
type NodePort struct {
	// The nodes' port for HTTP.
	HTTP *int64 `json:"http,omitempty"`
	// The nodes' port for HTTPS.
	HTTPS *int64 `json:"https,omitempty"`
}

// GPU is the classes with GPUs.
type GPU struct {
	// NVIDIA's device plugin.
	Nvidia *Class `json:"nvidia,omitempty"`
	// Intel's GPU plugin, kernel driver i915.
	IntelI915 *Class `json:"intelI915,omitempty"`
	// Intel's GPU plugin, kernel driver xe.
	IntelXe *Class `json:"intelXe,omitempty"`
	// AMD's device plugin.
	AMD *Class `json:"amd,omitempty"`
	// Dynamic Resource Allocation.
	DRA *DRA `json:"dra,omitempty"`
}

// Class is a class of workers.
type Class struct {
	// Sessions at a time per warm worker.
	Slots *int64 `json:"slots,omitempty"`
	// What each worker takes, warm or a Job's.
	Resources *Resources `json:"resources,omitempty"`
}

// DRA is the class whose devices a DRA driver hands out.
type DRA struct {
	// The DeviceClass (`kubectl get deviceclasses`).
	DeviceClassName *string `json:"deviceClassName,omitempty"`
	// Sessions at a time per warm worker.
	Slots *int64 `json:"slots,omitempty"`
	// What each worker takes, warm or a Job's.
	Resources *Resources `json:"resources,omitempty"`
}

// Resources is a container's.
type Resources struct {
	// Requests. Never empty.
	Requests map[string]Quantity `json:"requests,omitempty"`
	// Limits, the device among them under the name that the nodes offer (`kubectl describe node`).
	Limits map[string]Quantity `json:"limits,omitempty"`
}

// Keda is the ScaledObject of one class.
type Keda struct {
	// The class whose Deployment, ffpod-CLASS, is scaled: cpu, nvidia, …
	Class *string `json:"class,omitempty"`
	// The namespace of the install, from which KEDA reads the scheduler's metric.
	Namespace *string `json:"namespace,omitempty"`
	// The fewest warm workers.
	Min *int64 `json:"min,omitempty"`
	// The most warm workers.
	Max *int64 `json:"max,omitempty"`
	// Seconds for which fewer must have been enough.
	IdleSeconds *int64 `json:"idleSeconds,omitempty"`
}

// Kueue is where Jobs queue.
type Kueue struct {
	// The LocalQueue that is made in the namespace.
	LocalQueue *string `json:"localQueue,omitempty"`
	// The ClusterQueue that it belongs to (`kubectl get clusterqueues`).
	ClusterQueue *string `json:"clusterQueue,omitempty"`
}

// Priority is the PriorityClasses of workers.
type Priority struct {
	// That of all classes.
	Workers *PriorityClass `json:"workers,omitempty"`
	// That of classes labelled ffpod.dev/priority: background.
	Background *PriorityClass `json:"background,omitempty"`
}

// PriorityClass is one of them.
type PriorityClass struct {
	// Its name, of which the cluster has one.
	Name *string `json:"name,omitempty"`
	// Its value, from -10 to 0: workers never take the place of others.
	Value *int64 `json:"value,omitempty"`
}

// Nodes is where pods may run.
type Nodes struct {
	// The workers' nodes, by their label kubernetes.io/hostname. Never empty.
	Workers []string `json:"workers,omitempty"`
	// Jellyfin's nodes. Never empty.
	Jellyfin []string `json:"jellyfin,omitempty"`
}

// Network is the network policies' part.
type Network struct {
	// Ports that Jellyfin may reach at any address. Never empty.
	JellyfinEgress []Port `json:"jellyfinEgress,omitempty"`
}

// Port is a port, or a range of them.
type Port struct {
	// The port.
	Port *int64 `json:"port,omitempty"`
	// The last port of a range that begins with it.
	EndPort *int64 `json:"endPort,omitempty"`
	// TCP, UDP or SCTP.
	Protocol *string `json:"protocol,omitempty"`
}

// Backup is the CronJob.
type Backup struct {
	// When, as in cron, in the time zone jellyfin.environment.TZ.
	Schedule *string `json:"schedule,omitempty"`
	// How many stay.
	Keep *int64 `json:"keep,omitempty"`
	// The size of their claim.
	Size *Quantity `json:"size,omitempty"`
}

// Certificates is cert-manager's part.
type Certificates struct {
	// Who signs Jellyfin's.
	Issuer *Issuer `json:"issuer,omitempty"`
	// Who signs the scheduler's: a private CA.
	SchedulerIssuer *Issuer `json:"schedulerIssuer,omitempty"`
}

// Issuer is an issuer of cert-manager.
type Issuer struct {
	// Its name.
	Name *string `json:"name,omitempty"`
	// Issuer or ClusterIssuer, or an external issuer's kind.
	Kind *string `json:"kind,omitempty"`
}
