namespace Vmm.Testing.Virtio;

/// <summary>Every virtio device there is. The generic hostile cases run over this list; a device that is not in it fails a test.</summary>
public static class DeviceRegistry
{
    private static readonly Dictionary<string, Func<DeviceBench>> s_devices = new(StringComparer.Ordinal)
    {
        ["blk"] = () => new BlkBench(),
        ["net"] = () => new NetBench(2),
        ["rng"] = () => new RngBench(),
        ["balloon"] = () => new BalloonBench(),
        ["mem"] = () => new MemBench(),
        ["console"] = () => new ConsoleBench(),
        ["vsock"] = () => new VsockBench(),
        ["serial"] = () => new SerialBench(),
        ["pmem"] = () => new PmemBench(),
        ["fs"] = () => new FsBench(),
    };

    public static IEnumerable<string> Names => s_devices.Keys;

    public static DeviceBench Create(string name) => s_devices[name]();
}
