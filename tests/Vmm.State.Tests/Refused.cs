namespace Vmm.State.Tests;

/// <summary>What a saved state is refused with.</summary>
internal static class Refused
{
    internal static void With(string message, Action action) =>
        Assert.Contains(message, Assert.Throws<StateException>(action).Message, StringComparison.Ordinal);

    internal static void NotNow(string message, Action action) =>
        Assert.Contains(message, Assert.Throws<InvalidOperationException>(action).Message, StringComparison.Ordinal);
}
