"""Docker's Go types (API 1.50) of everything that can be inspected, as tables for `gotypes.Registry`.

For: `Template.inspect`, and (`gotypes_system`) `info` and `version`. The order of fields is that of `{{json .}}` and
`{{.}}`. Facts: what the docker client prints for answers that lack every optional field; a contract test compares.
May import `gotypes`. Must never be imported where plain dicts do: resolving a type costs about a millisecond.
"""

from __future__ import annotations

from tsunagu.wire.gotypes import Registry, Type

_TABLES: dict[str, str] = {
    "container.InspectResponse": """
        +*container.ContainerJSONBase
        Mounts []container.MountPoint
        Config *container.Config
        NetworkSettings *container.NetworkSettings
        ImageManifestDescriptor *v1.Descriptor ?
    """,
    "container.ContainerJSONBase": """
        ID=Id string
        Created string
        Path string
        Args []string
        State *container.State
        Image string
        ResolvConfPath string
        HostnamePath string
        HostsPath string
        LogPath string
        Name string
        RestartCount int
        Driver string
        Platform string
        MountLabel string
        ProcessLabel string
        AppArmorProfile string
        ExecIDs []string
        HostConfig *container.HostConfig
        GraphDriver storage.DriverData
        SizeRw *int64 ?
        SizeRootFs *int64 ?
    """,
    "container.State": """
        Status string
        Running bool
        Paused bool
        Restarting bool
        OOMKilled bool
        Dead bool
        Pid int
        ExitCode int
        Error string
        StartedAt string
        FinishedAt string
        Health *container.Health ?
    """,
    "container.Health": """
        Status string
        FailingStreak int
        Log []*container.HealthcheckResult
    """,
    "container.HealthcheckResult": """
        Start time.Time
        End time.Time
        ExitCode int
        Output string
    """,
    "container.MountPoint": """
        Type string ?
        Name string ?
        Source string
        Destination string
        Driver string ?
        Mode string
        RW bool
        Propagation string
    """,
    "container.Config": """
        Hostname string
        Domainname string
        User string
        AttachStdin bool
        AttachStdout bool
        AttachStderr bool
        ExposedPorts nat.PortSet ?
        Tty bool
        OpenStdin bool
        StdinOnce bool
        Env []string
        Cmd strslice.StrSlice
        Healthcheck *v1.HealthcheckConfig ?
        ArgsEscaped bool ?
        Image string
        Volumes map[string]struct{}
        WorkingDir string
        Entrypoint strslice.StrSlice
        NetworkDisabled bool ?
        MacAddress string ?
        OnBuild []string
        Labels map[string]string
        StopSignal string ?
        StopTimeout *int ?
        Shell strslice.StrSlice ?
    """,
    "v1.HealthcheckConfig": """
        Test []string ?
        Interval time.Duration ?
        Timeout time.Duration ?
        StartPeriod time.Duration ?
        StartInterval time.Duration ?
        Retries int ?
    """,
    "container.HostConfig": """
        Binds []string
        ContainerIDFile string
        LogConfig container.LogConfig
        NetworkMode string
        PortBindings nat.PortMap
        RestartPolicy container.RestartPolicy
        AutoRemove bool
        VolumeDriver string
        VolumesFrom []string
        ConsoleSize [2]uint
        Annotations map[string]string ?
        CapAdd strslice.StrSlice
        CapDrop strslice.StrSlice
        CgroupnsMode string
        DNS=Dns []string
        DNSOptions=DnsOptions []string
        DNSSearch=DnsSearch []string
        ExtraHosts []string
        GroupAdd []string
        IpcMode string
        Cgroup string
        Links []string
        OomScoreAdj int
        PidMode string
        Privileged bool
        PublishAllPorts bool
        ReadonlyRootfs bool
        SecurityOpt []string
        StorageOpt map[string]string ?
        Tmpfs map[string]string ?
        UTSMode string
        UsernsMode string
        ShmSize int64
        Sysctls map[string]string ?
        Runtime string ?
        Isolation string
        +container.Resources
        Mounts []mount.Mount ?
        MaskedPaths []string
        ReadonlyPaths []string
        Init *bool ?
    """,
    "container.LogConfig": """
        Type string
        Config map[string]string
    """,
    "container.RestartPolicy": """
        Name string
        MaximumRetryCount int
    """,
    "container.Resources": """
        CPUShares=CpuShares int64
        Memory int64
        NanoCPUs=NanoCpus int64
        CgroupParent string
        BlkioWeight uint16
        BlkioWeightDevice []*blkiodev.WeightDevice
        BlkioDeviceReadBps []*blkiodev.ThrottleDevice
        BlkioDeviceWriteBps []*blkiodev.ThrottleDevice
        BlkioDeviceReadIOps []*blkiodev.ThrottleDevice
        BlkioDeviceWriteIOps []*blkiodev.ThrottleDevice
        CPUPeriod=CpuPeriod int64
        CPUQuota=CpuQuota int64
        CPURealtimePeriod=CpuRealtimePeriod int64
        CPURealtimeRuntime=CpuRealtimeRuntime int64
        CpusetCpus string
        CpusetMems string
        Devices []container.DeviceMapping
        DeviceCgroupRules []string
        DeviceRequests []container.DeviceRequest
        KernelMemory int64 ?
        KernelMemoryTCP int64 ?
        MemoryReservation int64
        MemorySwap int64
        MemorySwappiness *int64
        OomKillDisable *bool
        PidsLimit *int64
        Ulimits []*units.Ulimit
        CPUCount=CpuCount int64
        CPUPercent=CpuPercent int64
        IOMaximumIOps uint64
        IOMaximumBandwidth uint64
    """,
    "blkiodev.WeightDevice": """
        Path string
        Weight uint16
    """,
    "blkiodev.ThrottleDevice": """
        Path string
        Rate uint64
    """,
    "container.DeviceMapping": """
        PathOnHost string
        PathInContainer string
        CgroupPermissions string
    """,
    "container.DeviceRequest": """
        Driver string
        Count int
        DeviceIDs []string
        Capabilities [][]string
        Options map[string]string
    """,
    "units.Ulimit": """
        Name string
        Hard int64
        Soft int64
    """,
    "mount.Mount": """
        Type string ?
        Source string ?
        Target string ?
        ReadOnly bool ?
        Consistency string ?
        BindOptions *mount.BindOptions ?
        VolumeOptions *mount.VolumeOptions ?
        ImageOptions *mount.ImageOptions ?
        TmpfsOptions *mount.TmpfsOptions ?
        ClusterOptions *struct{} ?
    """,
    "mount.BindOptions": """
        Propagation string ?
        NonRecursive bool ?
        CreateMountpoint bool ?
        ReadOnlyNonRecursive bool ?
        ReadOnlyForceRecursive bool ?
    """,
    "mount.VolumeOptions": """
        NoCopy bool ?
        Labels map[string]string ?
        Subpath string ?
        DriverConfig *mount.Driver ?
    """,
    "mount.Driver": """
        Name string ?
        Options map[string]string ?
    """,
    "mount.ImageOptions": """
        Subpath string ?
    """,
    "mount.TmpfsOptions": """
        SizeBytes int64 ?
        Mode os.FileMode ?
        Options [][]string ?
    """,
    "container.NetworkSettings": """
        +container.NetworkSettingsBase
        +container.DefaultNetworkSettings
        Networks map[string]*network.EndpointSettings
    """,
    "container.NetworkSettingsBase": """
        Bridge string
        SandboxID string
        SandboxKey string
        Ports nat.PortMap
        HairpinMode bool
        LinkLocalIPv6Address string
        LinkLocalIPv6PrefixLen int
        SecondaryIPAddresses []network.Address
        SecondaryIPv6Addresses []network.Address
    """,
    "container.DefaultNetworkSettings": """
        EndpointID string
        Gateway string
        GlobalIPv6Address string
        GlobalIPv6PrefixLen int
        IPAddress string
        IPPrefixLen int
        IPv6Gateway string
        MacAddress string
    """,
    "network.Address": """
        Addr string
        PrefixLen int
    """,
    "network.EndpointSettings": """
        IPAMConfig *network.EndpointIPAMConfig
        Links []string
        Aliases []string
        MacAddress string
        DriverOpts map[string]string
        GwPriority int
        NetworkID string
        EndpointID string
        Gateway string
        IPAddress string
        IPPrefixLen int
        IPv6Gateway string
        GlobalIPv6Address string
        GlobalIPv6PrefixLen int
        DNSNames []string
    """,
    "network.EndpointIPAMConfig": """
        IPv4Address string ?
        IPv6Address string ?
        LinkLocalIPs []string ?
    """,
    "network.Inspect": """
        Name string
        ID=Id string
        Created time.Time
        Scope string
        Driver string
        EnableIPv4 bool
        EnableIPv6 bool
        IPAM network.IPAM
        Internal bool
        Attachable bool
        Ingress bool
        ConfigFrom network.ConfigReference
        ConfigOnly bool
        Containers map[string]network.EndpointResource
        Options map[string]string
        Labels map[string]string
        Peers []network.PeerInfo ?
        Services map[string]any ?
    """,
    "network.IPAM": """
        Driver string
        Options map[string]string
        Config []network.IPAMConfig
    """,
    "network.IPAMConfig": """
        Subnet string ?
        IPRange string ?
        Gateway string ?
        AuxAddress=AuxiliaryAddresses map[string]string ?
    """,
    "network.ConfigReference": """
        Network string
    """,
    "network.EndpointResource": """
        Name string
        EndpointID string
        MacAddress string
        IPv4Address string
        IPv6Address string
    """,
    "network.PeerInfo": """
        Name string
        IP string
    """,
    "image.InspectResponse": """
        ID=Id string
        RepoTags []string
        RepoDigests []string
        Parent string
        Comment string
        Created string ?
        Container string ?
        ContainerConfig *container.Config ?
        DockerVersion string
        Author string
        Config *v1.DockerOCIImageConfig
        Architecture string
        Variant string ?
        Os string
        OsVersion string ?
        Size int64
        VirtualSize int64 ?
        GraphDriver storage.DriverData
        RootFS image.RootFS
        Metadata image.Metadata
        Descriptor *v1.Descriptor ?
        Manifests []any ?
    """,
    "image.RootFS": """
        Type string ?
        Layers []string ?
    """,
    "image.Metadata": """
        LastTagTime time.Time ?
    """,
    "v1.DockerOCIImageConfig": """
        +v1.ImageConfig
        +v1.DockerOCIImageConfigExt
    """,
    "v1.ImageConfig": """
        User string ?
        ExposedPorts map[string]struct{} ?
        Env []string ?
        Entrypoint []string ?
        Cmd []string ?
        Volumes map[string]struct{} ?
        WorkingDir string ?
        Labels map[string]string ?
        StopSignal string ?
        ArgsEscaped bool ?
    """,
    "v1.DockerOCIImageConfigExt": """
        Healthcheck *v1.HealthcheckConfig ?
        OnBuild []string ?
        Shell []string ?
    """,
    "v1.Descriptor": """
        MediaType=mediaType string
        Digest=digest string
        Size=size int64
        URLs=urls []string ?
        Annotations=annotations map[string]string ?
        Data=data string ?
        Platform=platform *v1.Platform ?
        ArtifactType=artifactType string ?
    """,
    "v1.Platform": """
        Architecture=architecture string
        OS=os string
        OSVersion=os.version string ?
        OSFeatures=os.features []string ?
        Variant=variant string ?
    """,
    "volume.Volume": """
        ClusterVolume *struct{} ?
        CreatedAt string ?
        Driver string
        Labels map[string]string
        Mountpoint string
        Name string
        Options map[string]string
        Scope string
        Status map[string]any ?
        UsageData *volume.UsageData ?
    """,
    "volume.UsageData": """
        RefCount int64
        Size int64
    """,
    "storage.DriverData": """
        Data map[string]string
        Name string
    """,
    "struct{}": "",
    "strslice.StrSlice": "[]string",
    "nat.PortMap": "map[nat.Port][]nat.PortBinding",
    "nat.PortSet": "map[nat.Port]struct{}",
    "nat.PortBinding": """
        HostIP=HostIp string
        HostPort string
    """,
}

_NAMES = {
    "container": "container.InspectResponse",
    "network": "network.Inspect",
    "image": "image.InspectResponse",
    "volume": "volume.Volume",
    "info": "system.dockerInfo",
    "version": "system.versionInfo",
}

_registry = Registry(_TABLES)


def resolve(name: str) -> Type:
    """The type of that Go name, or of a short one: container, network, image, volume, info, version.

    Raises KeyError.
    """
    full = _NAMES.get(name, name)
    if full not in _registry.tables and full.startswith(("system.", "types.", "registry.", "swarm.")):
        from tsunagu.wire.gotypes_system import TABLES

        _registry.tables = {**_registry.tables, **TABLES}
    return _registry.resolve(full)
