using Vmm.Kvm;

namespace Vmm.Daemon.Api;

/// <summary>
/// What KVM of this host can do. Finding out builds a small VM, which nobody may repeat at will: the answer is kept, and "none" is asked again after
/// <see cref="Again"/> (a module that is loaded later).
/// </summary>
internal sealed class HostKvm(TimeProvider time, Func<string> probe)
{
    /// <summary>How long "none" holds.</summary>
    internal static readonly TimeSpan Again = TimeSpan.FromSeconds(10);

    private readonly Lock _gate = new();
    private string? _known;
    private long _asked;

    /// <summary>That of this process.</summary>
    internal static HostKvm Shared { get; } = new(TimeProvider.System, Probe);

    /// <summary><c>hardware</c>, <c>emulating</c> or <c>none</c>.</summary>
    internal string Kind
    {
        get
        {
            lock (_gate)
            {
                if (_known is null || (string.Equals(_known, "none", StringComparison.Ordinal) && time.GetElapsedTime(_asked) >= Again))
                {
                    _known = probe();
                    _asked = time.GetTimestamp();
                }

                return _known;
            }
        }
    }

    private static string Probe()
    {
        try
        {
            using KvmSystem system = KvmSystem.Open();
            return KvmKindProbe.Detect(system) == KvmKind.Hardware ? "hardware" : "emulating";
        }
        catch (KvmUnavailableException)
        {
            return "none";
        }
    }
}
