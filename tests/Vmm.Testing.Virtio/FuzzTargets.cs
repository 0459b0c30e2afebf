namespace Vmm.Testing.Virtio;

/// <summary>A device that takes bytes of a fuzzer as what a guest does to it. One caller at a time.</summary>
public interface IFuzzTarget : IDisposable
{
    /// <summary>Does what the bytes say; throws when the device does what it must not.</summary>
    void Feed(ReadOnlySpan<byte> input);

    /// <summary>The device works still.</summary>
    void Heal();

    /// <summary>Something sound as an input, to begin with.</summary>
    byte[] Seed();
}

/// <summary>What is fuzzed, by name.</summary>
public static class FuzzTargets
{
    public static IEnumerable<string> Names => [.. DeviceInputs.Targets, .. FirmwareInputs.Targets];

    public static IFuzzTarget Create(string name) =>
        FirmwareInputs.Targets.Contains(name, StringComparer.Ordinal) ? new FirmwareInputs(name) : new DeviceInputs(name);
}
