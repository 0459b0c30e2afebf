using System.Text.Json.Serialization;

namespace Vmm.Contracts.Control;

/// <summary>The units of a VM's machine at one moment: everything that has state.</summary>
/// <param name="Units">In the order in which the machine has them.</param>
/// <param name="Operation">What goes on with all of them, <c>quiesce</c>, <c>save</c>, <c>resume</c>; null: nothing, or the machine is at
/// rest after it.</param>
public sealed record UnitList(
    IReadOnlyList<UnitInfo> Units,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Operation = null);

/// <summary>One unit.</summary>
/// <param name="Name"><c>vcpu0</c>, <c>device/disk0</c>, <c>irqchip</c>, …</param>
/// <param name="Phase"><c>running quiescing quiescent saving restoring resuming failed</c>; a later release may have others.</param>
/// <param name="Text">What it says of itself.</param>
/// <param name="Milliseconds">How long it is in this phase; null when no operation has moved it.</param>
public sealed record UnitInfo(
    string Name,
    string Phase,
    string Text,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] long? Milliseconds = null);
