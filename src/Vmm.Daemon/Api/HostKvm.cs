using Vmm.Cpu;
using Vmm.Kvm;

namespace Vmm.Daemon.Api;

/// <summary>
/// What KVM of this host can do. Finding out builds a small VM, which nobody may repeat at will: the answer is kept, and "none" is asked
/// again after <see cref="Again"/> (a module that is loaded later).
/// </summary>
internal sealed class HostKvm(TimeProvider time, Func<HostKvm.Answer> probe)
{
    /// <summary>How long "none" holds.</summary>
    internal static readonly TimeSpan Again = TimeSpan.FromSeconds(10);

    private readonly Lock _gate = new();
    private Answer? _known;
    private long _asked;

    /// <summary>That of this process.</summary>
    internal static HostKvm Shared { get; } = new(TimeProvider.System, Probe);

    /// <summary><c>hardware</c>, <c>emulating</c> or <c>none</c>.</summary>
    internal string Kind => Known.Kind;

    /// <summary>The CPU models it can run.</summary>
    internal IReadOnlyList<string> CpuModels => Known.CpuModels;

    private Answer Known
    {
        get
        {
            lock (_gate)
            {
                if (_known is null || (string.Equals(_known.Kind, "none", StringComparison.Ordinal) && time.GetElapsedTime(_asked) >= Again))
                {
                    _known = probe();
                    _asked = time.GetTimestamp();
                }

                return _known;
            }
        }
    }

    private static Answer Probe()
    {
        try
        {
            using KvmSystem system = KvmSystem.Open();
            return new Answer(KvmKindProbe.Detect(system) == KvmKind.Hardware ? "hardware" : "emulating", CpuModel.RunnableOn(HostCpu.Describe(system)));
        }
        catch (KvmUnavailableException)
        {
            return new Answer("none", []);
        }
    }

    /// <summary>What was found.</summary>
    /// <param name="Kind"><c>hardware</c>, <c>emulating</c> or <c>none</c>.</param>
    /// <param name="CpuModels">CPU models.</param>
    internal sealed record Answer(string Kind, IReadOnlyList<string> CpuModels);
}
