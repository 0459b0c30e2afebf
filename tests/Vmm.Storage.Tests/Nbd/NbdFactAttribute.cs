namespace Vmm.Storage.Tests.Nbd;

/// <summary>A test that needs libnbd and a real server; skipped, with the reason, where one of them is missing.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class NbdFactAttribute : FactAttribute
{
    public NbdFactAttribute(string program = "qemu-nbd") => Skip = NbdServer.WhyNot(program);
}

/// <summary>The same for theories; without a program the library is enough.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class NbdTheoryAttribute : TheoryAttribute
{
    public NbdTheoryAttribute(string program = "sh") => Skip = NbdServer.WhyNot(program);
}
