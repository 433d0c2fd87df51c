// What Microsoft Sentinel needs to take alerts from alertbeam: the table AlertBeam_CL, a data
// collection rule with an endpoint of its own, and the right to send to it. As sentinel.json.

@description('The Log Analytics workspace that Microsoft Sentinel works on, in this resource group.')
param workspace string

@description('Object id of who sends: of a service principal or a managed identity; not the application\'s id.')
param principal string

@description('The workspace\'s region.')
param location string = resourceGroup().location

@description('Name of the data collection rule.')
param rule string = 'alertbeam'

@description('Whether there is a stream to ASimAlertEventLogs, a table that only a workspace with Microsoft Sentinel has.')
param asim bool = true

@description('Resource id of a data collection endpoint, for a private link; without one the rule\'s own endpoint is the way in.')
param endpoint string = ''

@description('Days that AlertBeam_CL is kept; -1: as the workspace is.')
param retention int = -1

var columns = loadJsonContent('columns.json')

// Monitoring Metrics Publisher
var role = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '3913510d-42f4-4e42-8a64-420c390055eb')

var streams = {
  'Custom-AlertBeam_CL': {
    columns: map(columns.AlertBeam_CL, column => { name: column.name, type: column.type })
  }
}
var flows = [
  {
    streams: ['Custom-AlertBeam_CL']
    destinations: ['sentinel']
    transformKql: 'source'
    outputStream: 'Custom-AlertBeam_CL'
  }
]
var asimStreams = {
  'Custom-ASimAlertEventLogs': {
    columns: columns.ASimAlertEventLogs
  }
}
var asimFlows = [
  {
    streams: ['Custom-ASimAlertEventLogs']
    destinations: ['sentinel']
    transformKql: 'source'
    outputStream: 'Microsoft-ASimAlertEventLogs'
  }
]

resource logs 'Microsoft.OperationalInsights/workspaces@2022-10-01' existing = {
  name: workspace
}

resource table 'Microsoft.OperationalInsights/workspaces/tables@2022-10-01' = {
  parent: logs
  name: 'AlertBeam_CL'
  properties: {
    plan: 'Analytics'
    retentionInDays: retention
    schema: {
      name: 'AlertBeam_CL'
      columns: any(columns.AlertBeam_CL)
    }
  }
}

resource collection 'Microsoft.Insights/dataCollectionRules@2023-03-11' = {
  name: rule
  location: location
  kind: 'Direct'
  properties: {
    description: 'Alerts from alertbeam'
    dataCollectionEndpointId: empty(endpoint) ? null : endpoint
    streamDeclarations: any(asim ? union(streams, asimStreams) : streams)
    destinations: {
      logAnalytics: [
        {
          name: 'sentinel'
          workspaceResourceId: logs.id
        }
      ]
    }
    dataFlows: any(asim ? concat(flows, asimFlows) : flows)
  }
  dependsOn: [table]
}

resource sender 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: collection
  name: guid(collection.id, principal, role)
  properties: {
    roleDefinitionId: role
    principalId: principal
    principalType: 'ServicePrincipal'
  }
}

output endpoint string = collection.properties.endpoints.logsIngestion
output rule string = collection.properties.immutableId
