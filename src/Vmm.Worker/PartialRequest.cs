using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Worker;

/// <summary>
/// A request with more descriptors than one packet carries (unix(7): at most 253, <see cref="ControlCodec.MaxDescriptors"/> here). Its
/// first frame says how many follow; frames of kind <see cref="ControlKinds.More"/> with the same id bring them, with nothing in between.
/// </summary>
internal sealed class PartialRequest : IDisposable
{
    private readonly Dictionary<string, FileDescriptorHandle> _named = new(StringComparer.Ordinal);
    private readonly int _expected;

    private PartialRequest(ControlFrame frame, int expected)
    {
        Frame = frame;
        _expected = expected;
    }

    /// <summary>The first frame.</summary>
    internal ControlFrame Frame { get; }

    /// <summary>Everything has come.</summary>
    internal bool IsWhole => _named.Count == _expected;

    /// <summary>Begins with the first frame of a request, and takes its descriptors over.</summary>
    /// <returns>The request; null, and why, when it is not sound: then its descriptors are closed.</returns>
    internal static PartialRequest? TryBegin(ControlFrame frame, FileDescriptorHandle[] descriptors, out string problem)
    {
        int expected = descriptors.Length + (frame.MoreDescriptors ?? 0);
        PartialRequest request = new(frame, expected);
        problem = frame.Kind is ControlKinds.More ? "descriptors that belong to no request"
            : frame.MoreDescriptors < 0 || expected > ControlCodec.MaxRequestDescriptors
                ? $"a request of {expected} descriptors, at most {ControlCodec.MaxRequestDescriptors}"
            : "";
        return request.Take(frame, descriptors, ref problem) ? request : null;
    }

    /// <summary>Takes the next frame and its descriptors.</summary>
    /// <returns>False, and why, when it does not belong here: then everything is closed.</returns>
    internal bool TryAdd(ControlFrame frame, FileDescriptorHandle[] descriptors, out string problem)
    {
        problem = frame.Kind is not ControlKinds.More || frame.Id != Frame.Id
            ? $"\"{frame.Kind}\" came before all descriptors of \"{Frame.Kind}\""
            : descriptors.Length == 0 || _named.Count + descriptors.Length > _expected ? "other descriptors than were announced"
            : "";
        return Take(frame, descriptors, ref problem);
    }

    /// <summary>Gives the descriptors away, by name.</summary>
    internal Dictionary<string, FileDescriptorHandle> Detach()
    {
        Dictionary<string, FileDescriptorHandle> all = new(_named, StringComparer.Ordinal);
        _named.Clear();
        return all;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (FileDescriptorHandle descriptor in _named.Values)
        {
            descriptor.Dispose();
        }

        _named.Clear();
    }

    private bool Take(ControlFrame frame, FileDescriptorHandle[] descriptors, ref string problem)
    {
        for (int i = 0; i < descriptors.Length; i++)
        {
            if (problem.Length > 0 || !_named.TryAdd(frame.Descriptors![i], descriptors[i]))
            {
                problem = problem.Length > 0 ? problem : $"two descriptors named \"{frame.Descriptors![i]}\"";
                descriptors[i].Dispose();
            }
        }

        if (problem.Length > 0)
        {
            Dispose();
        }

        return problem.Length == 0;
    }
}
