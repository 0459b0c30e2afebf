using Vmm.Contracts;

namespace Vmm.Daemon.Guests.Qemu;

/// <summary>Why the standard agent gave no answer.</summary>
internal enum QemuAgentFault
{
    /// <summary>No agent has the port open, or it went.</summary>
    None,

    /// <summary>It did not answer in time.</summary>
    Silent,

    /// <summary>It refused, with a reason of its own.</summary>
    Refused,

    /// <summary>What it said is no answer.</summary>
    Unsound,
}

/// <summary>The standard agent of a guest gave no answer. The text is fit for terminals, whatever the guest said.</summary>
internal sealed class QemuAgentException(QemuAgentFault fault, string message, Exception? cause = null)
    : Exception(SafeText.Line(message, LongestText), cause)
{
    private const int LongestText = 400;

    /// <summary>The kind of failure.</summary>
    internal QemuAgentFault Fault => fault;
}
