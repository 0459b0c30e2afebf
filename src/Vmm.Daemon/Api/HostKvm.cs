using Vmm.Cpu;

namespace Vmm.Daemon.Api;

/// <summary>
/// What KVM of this host can do, as the worker program finds it: a daemon drives no KVM. Finding out builds a small VM, which nobody may
/// repeat at will: the answer is kept, and "none" is asked again after <see cref="Again"/> (a module that is loaded later).
/// </summary>
internal sealed class HostKvm(TimeProvider time, Func<KvmSurvey> survey)
{
    /// <summary>How long "none" holds.</summary>
    internal static readonly TimeSpan Again = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan s_surveyTime = TimeSpan.FromSeconds(20);

    private readonly Lock _gate = new();
    private KvmSurvey? _known;
    private long _asked;

    /// <summary>Asks this worker program.</summary>
    internal static HostKvm Of(string program) => new(TimeProvider.System, () => SurveyProgram.Ask(program, s_surveyTime));

    /// <summary><c>hardware</c>, <c>emulating</c> or <c>none</c>.</summary>
    internal string Kind => Known.Kind;

    /// <summary>The CPU models it can run.</summary>
    internal IReadOnlyList<string> CpuModels => Known.CpuModels;

    /// <summary>The processor that it can show to guests; null without KVM.</summary>
    internal CpuDescription? Processor => Known.Processor;

    private KvmSurvey Known
    {
        get
        {
            lock (_gate)
            {
                if (_known is null
                    || (string.Equals(_known.Kind, "none", StringComparison.Ordinal) && time.GetElapsedTime(_asked) >= Again))
                {
                    _known = survey();
                    _asked = time.GetTimestamp();
                }

                return _known;
            }
        }
    }
}
